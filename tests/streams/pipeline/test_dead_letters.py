"""What cannot be answered ends as a dead letter, with everything needed to put it back, and ends no worker."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from contracts.codec import DEAD_LETTER, REDRIVE, Headers, dead_letter, encode_event, redrive_headers
from contracts.errors import ContentBlocked, InvalidRequest
from contracts.payloads import DEAD_LETTER_MARKER_TYPE, Redrive
from contracts.settings import ProducerSettings
from tests.contracts.log_lab import configured
from tests.streams.pipeline.support import APP_ID, SCHEMA, TOPICS, Bench, Broken, event, headers_of, make_settings

CE: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"e0"), ("ce_source", b"s"), ("ce_type", b"t")]
POISON = {
    "null value": (b"k", None, CE),
    "no headers at all": (b"k", b"{}", []),
    "no id": (b"k", b"{}", CE[:1] + CE[2:]),
    "a header twice": (b"k", b"{}", [*CE, ("ce_id", b"other")]),
    "a header that is not UTF-8": (b"k", b"{}", [*CE, ("ce_subject", b"\xff\xfe")]),
    "a key that is not UTF-8": (b"\xff\xfe", b"{}", CE),
    "another version": (b"k", b"{}", [("ce_specversion", b"0.3"), *CE[1:]]),
}


@pytest.mark.parametrize("name", POISON)
async def test_an_undecodable_record_is_buried_at_once(name: str) -> None:
    bench = await Bench().start()
    await bench.put(*POISON[name])
    await bench.idle()

    assert (bench.marker().status, bench.marker().reason) == ("dead_letter", "undecodable")
    assert (len(bench.letters), bench.fake.calls, bench.committed, bench.crashes) == (1, {}, 1, [])


async def test_a_dead_letter_carries_the_original_bytes_key_and_headers() -> None:
    bench = await Bench().start()
    headers = [("ce_id", b"\xff"), ("foreign", b"\x00\x01"), ("foreign", b"twice"), ("empty", b"")]
    await bench.put(b"\xfe key", b"\x00\xff not json", headers)
    await bench.idle()
    (letter,) = bench.letters

    assert (letter.topic, letter.key, letter.value) == (TOPICS.dead_letters, b"\xfe key", b"\x00\xff not json")
    assert letter.headers[:-1] == headers
    assert letter.headers[-1][0] == DEAD_LETTER


async def test_the_dead_letter_is_written_before_the_marker() -> None:
    bench = await Bench([{"error": "invalid_request"}]).run(event())

    assert [record.topic for record in bench.producer.records] == [TOPICS.dead_letters, TOPICS.results]
    assert headers_of(bench.terminals[0])["ce_type"].decode() == DEAD_LETTER_MARKER_TYPE


@pytest.mark.parametrize(
    ("error", "disposition"),
    [("invalid_request", "poison"), ("context_too_long", "poison"), ("content_blocked", "refused")],
)
async def test_a_refusal_of_the_provider_is_buried_after_one_call(error: str, disposition: str) -> None:
    bench = await Bench([{"error": error}]).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.disposition, letter.attempts) == (error, disposition, 1)
    assert (letter.partition, letter.offset, letter.route) == (2, 0, "r")
    assert [note.reason for note in letter.failures] == [error]


async def test_an_event_without_a_route_is_unroutable() -> None:
    bench = await Bench(settings=make_settings({"match": {"source": "other"}})).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.disposition, letter.attempts, bench.fake.calls) == ("no_route", "unroutable", 0, {})


async def test_an_answer_that_breaks_the_schema_twice_is_buried_with_the_paid_answer() -> None:
    bench = await Bench([{"answer": '{"n": "x"}'}], make_settings({"output_schema": SCHEMA})).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.attempts, letter.answer) == ("output_invalid", 2, '{"n": "x"}')
    assert letter.message.startswith("/n: ")


QUOTING: dict[str, tuple[list[dict[str, Any]], dict[str, Any], bytes]] = {
    "an answer": ([{"answer": '{"n": "Ines Weber"}'}], {"output_schema": SCHEMA}, b"{}"),
    "an event": ([], {"prompt": {"user": "{{ [1].index(data.n) }}"}}, b'{"n": "Ines Weber"}'),
}


@pytest.mark.parametrize("name", QUOTING)
async def test_the_log_says_why_an_event_was_buried_and_quotes_neither_event_nor_answer(name: str) -> None:
    script, route, data = QUOTING[name]
    with capture_logs() as lines:
        bench = await Bench(script, make_settings(route)).run(event(data=data))
    (line,) = [line for line in lines if line["event"] == "event.finished"]

    assert bench.marker().reason == line["reason"]
    assert line["error"]
    assert "Ines" not in str(lines)


@pytest.mark.parametrize(
    ("template", "data", "reason"),
    [
        ("{{ data.missing }}", b"{}", "prompt_failed"),
        ("{{ data.n }}", b"not json", "undecodable"),
        ("{{ data | dictsort }}", b"[1]", "prompt_failed"),
        ("{{ data.n + 1 }}", b'{"n": "x"}', "prompt_failed"),
        ("{{ 1 // data.n }}", b'{"n": 0}', "prompt_failed"),
        ("{{ data }}", b"[" * 100_000, "undecodable"),
    ],
)
async def test_data_that_the_prompt_cannot_take_ends_the_event_and_not_the_worker(
    template: str, data: bytes, reason: str
) -> None:
    bench = await Bench(settings=make_settings({"prompt": {"user": template}})).run(event(data=data))

    assert (bench.crashes, bench.marker().reason, bench.fake.calls) == ([], reason, {})


@pytest.mark.parametrize("template", ["{{ data }}", "{{ data | tojson }}", "{{ text }}", "{{ data.a }}"])
@pytest.mark.parametrize("depth", [600, 2000, 100_000])
async def test_data_of_any_depth_ends_the_event_and_not_the_worker(depth: int, template: str) -> None:
    """How deep is too deep depends on the Python, and on who reads: what is decoded may be too deep for the rest."""
    data = b'{"a":' * depth + b'"\\u200b"' + b"}" * depth
    bench = await Bench(settings=make_settings({"prompt": {"user": template}})).run(event(data=data))

    assert (bench.crashes, len(bench.terminals)) == ([], 1)


@pytest.mark.parametrize("error", [None, "invalid_request"])
async def test_a_redrive_note_nested_deeper_than_anybody_reads_ends_no_worker(error: str | None) -> None:
    bench = await Bench([{"error": error}] if error else []).start()
    await bench.put(b"k", b"{}", [*CE, (REDRIVE, b'{"more":' + b"[" * 5000 + b"]" * 5000 + b"}")])
    await bench.idle()

    assert (len(bench.terminals), bench.committed, bench.crashes) == (1, 1, [])


async def test_a_prompt_above_the_limit_is_buried_without_a_call() -> None:
    settings_ = make_settings({"prompt": {"user": "{{ text }}", "max_chars": 100}})
    bench = await Bench(settings=settings_).run(event(data=b"x" * 101))

    assert (bench.marker().reason, bench.fake.calls) == ("context_too_long", {})


async def test_a_bug_in_a_provider_ends_the_event_and_not_the_worker() -> None:
    bench = await Bench(provider=Broken()).run(event())
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.disposition, bench.crashes) == ("internal", "poison", [])
    assert "unexpected e0" in letter.message


class Quoting(Broken):
    """A provider whose bug quotes what it was asked."""

    async def invoke(self, request: Any) -> Any:
        """Fail as a library does that checks its arguments."""
        raise ValueError(str(request.messages))


@pytest.mark.parametrize("where", ["a provider", "a step"])
async def test_what_a_bug_says_of_an_event_is_in_its_dead_letter_and_not_in_the_log(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_self: object, given: Any) -> None:
        raise ValueError(given.data.decode())

    if where == "a step":
        monkeypatch.setattr("streams.steps.prompt.PromptTemplate.render", broken)
    with configured():
        bench = await Bench(provider=Quoting()).run(event(data=b"Ines Weber"))

    written = capsys.readouterr().err
    assert "Ines Weber" in dead_letter(bench.letters[0].headers).message
    assert "ValueError" in written
    assert '"event.finished"' in written
    assert "Ines" not in written


@pytest.mark.parametrize("reason", ["invalid_request", "content_blocked"])
async def test_the_words_of_a_refusal_are_in_the_dead_letter_and_not_in_the_log(reason: str) -> None:
    class Refusing(Broken):
        async def invoke(self, request: Any) -> Any:
            kind = {"invalid_request": InvalidRequest, "content_blocked": ContentBlocked}[reason]
            message = f"cannot answer {request.messages}"
            raise kind(message)

    with capture_logs() as lines:
        bench = await Bench(provider=Refusing()).run(event(data=b"Ines Weber"))

    assert "Ines Weber" in dead_letter(bench.letters[0].headers).message
    assert {line["reason"] for line in lines if "reason" in line} == {reason}
    assert "Ines" not in str(lines)


async def test_a_bug_in_a_step_ends_the_event_and_not_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object, _event: object) -> None:
        raise MemoryError

    monkeypatch.setattr("streams.steps.prompt.PromptTemplate.render", broken)
    bench = await Bench().run(event())

    assert (bench.marker().reason, bench.crashes) == ("internal", [])


async def test_a_result_that_is_too_large_becomes_a_dead_letter() -> None:
    limits = ProducerSettings(max_record_bytes=4000)
    bench = await Bench([{"answer": "x" * 5000}], make_settings(model={"max_tokens": 10_000}), limits=limits).run(
        event()
    )
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.attempts, bench.marker().status) == ("too_large", 1, "dead_letter")


async def test_a_dead_letter_that_would_be_too_large_goes_without_the_answer() -> None:
    limits = ProducerSettings(max_record_bytes=4000)
    script = [{"answer": '{"n": "' + "x" * 3000 + '"}'}]
    settings_ = make_settings({"output_schema": SCHEMA}, model={"max_tokens": 10_000})
    bench = await Bench(script, settings_, limits=limits).run(event(data=b"y" * 1500))
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.answer, bench.letters[0].value) == ("output_invalid", "", b"y" * 1500)


async def test_a_record_too_large_for_any_dead_letter_still_ends_and_says_where_it_lies() -> None:
    """Without this the worker would crash at the same record after every restart."""
    bench = await Bench([{"error": "invalid_request"}], limits=ProducerSettings(max_record_bytes=2000)).run(
        event(data=b"y" * 5000)
    )

    assert (bench.crashes, bench.letters, bench.marker().reason, bench.committed) == ([], [], "invalid_request", 1)
    assert "t.events.standard.v1/2/0 is too large to be copied" in bench.marker().message


async def test_an_event_whose_name_alone_fills_a_record_still_ends() -> None:
    bench = await Bench([{"error": "invalid_request"}], limits=ProducerSettings(max_record_bytes=2000)).run(
        event(id="i" * 3000)
    )

    assert (bench.crashes, bench.marker().event_id, bench.committed) == ([], "t.events.standard.v1/2/0", 1)


@pytest.mark.parametrize("field", ["at", "by"])
async def test_an_event_whose_redrive_note_fills_a_record_still_ends(field: str) -> None:
    fields = {"partition": 0, "offset": 0, "timestamp_ms": 0, "count": 1, "at": "", field: "x" * 3000}
    bench = await Bench(limits=ProducerSettings(max_record_bytes=2000)).start()
    await bench.put(b"k", b"{}", [*CE, (REDRIVE, json.dumps(fields).encode())])
    await bench.idle()

    assert (bench.crashes, bench.result().event_id, bench.committed) == ([], "e0", 1)


async def test_text_that_no_record_can_carry_does_not_end_the_worker() -> None:
    class HalfEmoji(Broken):
        async def invoke(self, _request: Any) -> Any:
            message = "\ud83d"
            raise KeyError(message)

    bench = await Bench(provider=HalfEmoji()).run(event())

    assert (bench.crashes, bench.marker().reason) == ([], "internal")


INSTANTS = [b"1.0", b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-14:00"]
RAW_HEADERS = st.lists(
    st.tuples(
        st.sampled_from([name for name, _ in CE] + ["ce_time", "ce_expirytime", "content-type", "ce_X", "foreign"]),
        st.none() | st.binary(max_size=30) | st.sampled_from(INSTANTS),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=50),
    headers=RAW_HEADERS,
    base=st.sampled_from([CE, []]),
    timestamp_ms=st.integers(-(2**63), 2**63 - 1) | st.none(),
)
async def test_any_record_ends_in_exactly_one_terminal_record(
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
    base: Headers,
    timestamp_ms: int | None,
) -> None:
    """A record that makes the agent raise would be passed by the commit without an outcome."""
    bench = await Bench().start()
    await bench.put(key, value, [*base, *headers], timestamp_ms=timestamp_ms)
    await bench.idle()

    assert (bench.crashes, len(bench.terminals), bench.committed) == ([], 1, 1)


async def test_a_bad_event_does_not_keep_the_next_of_its_key() -> None:
    bench = await Bench([{"match": "e0", "error": "invalid_request"}]).start()
    await bench.put(b"k", None, encode_event(event(9)))
    await bench.send(event(0), event(1))
    await bench.idle()

    assert (len(bench.letters), len(bench.terminals), bench.committed) == (2, 3, 3)


@pytest.mark.parametrize(("app_id", "calls"), [("another", 0), (APP_ID, 1), ("", 1)])
async def test_an_event_that_was_put_back_for_another_application_is_passed_over(app_id: str, calls: int) -> None:
    """That one has buried it; here it was answered, and would be paid for once more."""
    bench = await Bench().start()
    redrive = Redrive(partition=0, offset=0, timestamp_ms=0, count=1, at="", app_id=app_id)
    await bench.put(b"k", b"{}", [(name, raw or b"") for name, raw in redrive_headers(CE, redrive)])
    await bench.put(b"k", b"{}", [*CE[:1], ("ce_id", b"e1"), *CE[2:]])
    await bench.idle()

    assert (bench.fake.calls.get("e0", 0), bench.fake.calls.get("e1", 0)) == (calls, 1)
    assert (bench.committed, len(bench.terminals), bench.crashes) == (2, calls + 1, [])
