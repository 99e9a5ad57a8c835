"""What every section of the configuration has in common."""

from typing import Annotated

from pydantic import Field

from contracts.settings import Settings
from contracts.settings.section import Section

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
