"""What every section of the configuration has in common."""

import errno
import socket
from typing import Annotated

import pytest
from pydantic import Field

from contracts.settings import Settings
from contracts.settings.section import Section, cannot_listen

Size = Annotated[int, Field(description="Any size.")]


class Box(Section):
    width: Size
    """Of the box, mm.

    Outside.
    """
    height: Size


class Crate(Box):
    height: Size
    """Of the crate, mm."""
    weight: float = 1
    "Of the crate, kg."


def test_the_docstring_under_a_field_is_its_description_and_that_of_its_type_stands_in_for_it() -> None:
    described = {name: field.get("description") for name, field in Box.model_json_schema()["properties"].items()}

    assert described == {"width": "Of the box, mm.\n\nOutside.", "height": "Any size."}


def test_a_section_that_extends_another_has_its_words_and_its_own() -> None:
    described = {name: field.get("description") for name, field in Crate.model_json_schema()["properties"].items()}

    assert described == {
        "width": "Of the box, mm.\n\nOutside.",
        "height": "Of the crate, mm.",
        "weight": "Of the crate, kg.",
    }


def test_every_section_of_the_file_is_described() -> None:
    fields = Settings.model_json_schema()["properties"]

    assert [name for name, field in fields.items() if "description" not in field] == []


@pytest.mark.parametrize(
    ("error", "key", "reason"),
    [
        (OSError(errno.EADDRINUSE, "error while attempting to bind on ..."), "health_port", "Address already in use"),
        (PermissionError(errno.EACCES, "Permission denied"), "health_port", "Permission denied"),
        (OSError(errno.EADDRNOTAVAIL, "error while ..."), "health_host", "Cannot assign requested address"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "health_host", "Name or service not known"),
        (UnicodeError("label too long"), "health_host", "label too long"),
        (OSError("could not bind"), "health_host", "could not bind"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_of_the_setting_that_is_to_be_changed(
    error: OSError | ValueError, key: str, reason: str
) -> None:
    ((place, text),) = cannot_listen("worker", "box", 81, error).problems

    assert place == ("worker", key)
    assert text.startswith(f"worker.{key}: cannot listen on box:81: {reason}; choose ")
