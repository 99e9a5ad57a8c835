"""Which route takes an event."""

import pytest
from pydantic import ValidationError

from contracts.envelope import Event
from contracts.errors import NoRoute
from contracts.settings import RouteSettings
from streams.steps.route import Router


def route(name: str, **match: object) -> RouteSettings:
    return RouteSettings.model_validate({"name": name, "match": match, "prompt": {"user": "x"}, "model": "m"})


def chosen(source: str, kind: str, *routes: RouteSettings) -> str:
    return Router(routes).route(Event(id="1", source=source, type=kind, data=b"")).name


def test_the_first_that_matches_takes_the_event() -> None:
    routes = (route("one", type="com.a.*"), route("two", type="com.*"), route("rest"))

    assert [chosen("s", kind, *routes) for kind in ("com.a.x", "com.b.x", "org.x")] == ["one", "two", "rest"]


def test_source_and_type_must_both_match() -> None:
    routes = (route("both", source="s", type="t"), route("rest"))

    assert [chosen(s, t, *routes) for s, t in (("s", "t"), ("s", "x"), ("x", "t"))] == ["both", "rest", "rest"]


def test_any_of_several_patterns_matches() -> None:
    routes = (route("listed", type=["a", "b.*"]), route("rest"))

    assert [chosen("s", kind, *routes) for kind in ("a", "b.c", "c")] == ["listed", "listed", "rest"]


@pytest.mark.parametrize("kind", ["A", "ab", "xa", "a\nb", ""])
def test_a_pattern_matches_the_whole_text_and_its_case(kind: str) -> None:
    assert chosen("s", kind, route("exact", type="a"), route("rest")) == "rest"


def test_an_event_that_none_takes_is_told_with_its_source_and_type() -> None:
    with pytest.raises(NoRoute, match="no route matches source 's' and type 't'"):
        chosen("s", "t", route("other", source="x"))


def test_an_empty_list_of_patterns_is_refused_because_it_would_match_everything() -> None:
    with pytest.raises(ValidationError):
        route("empty", type=[])
