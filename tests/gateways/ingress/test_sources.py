"""Sources made from the configuration."""

import pytest

from contracts.errors import ConfigError
from contracts.settings import SourceSettings
from contracts.topics import Topics
from gateways.ingress.sources import build_sources


def test_all_sources_that_cannot_be_used_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_SHORT", "short")
    source = SourceSettings.model_validate(
        {"scheme": "github", "type": "t", "secrets": [{"id": "a", "value": "env:PENSTOCK_TEST_SHORT"}]}
    )

    with pytest.raises(ConfigError) as caught:
        build_sources({"one": source, "two": source}, Topics("p"))

    assert str(caught.value).splitlines() == [
        "sources.one: secret 'a': has 5 bytes, needs 16 to 4096",
        "sources.two: secret 'a': has 5 bytes, needs 16 to 4096",
    ]
