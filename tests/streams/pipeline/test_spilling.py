"""An event that goes to the provider's batch API by itself stands for its event in the journal, or is answered here."""

from contracts.codec import parked_event, source_position
from contracts.errors import TooLarge
from tests.streams.pipeline.support import APP_ID, EVENTS, PARTITION, TOPICS, Bench, event


def spilling() -> Bench:
    bench = Bench()
    bench.pipeline._spills = lambda _item, _job: True
    return bench


async def test_a_spilled_event_is_not_called_and_its_offset_is_finished() -> None:
    bench = await spilling().run(event())
    (record,) = bench.on(TOPICS.handovers)
    owner, note, _ = parked_event(record.headers)
    found = source_position(record.headers)

    assert (owner, note.reason, record.partition, record.value) == (APP_ID, "spilled", PARTITION, b'{"n": 1}')
    assert found is not None
    assert found[1][:3] == (EVENTS, PARTITION, 0)
    assert (bench.fake.calls, bench.terminals, bench.committed, bench.crashes) == ({}, [], 1, [])


async def test_an_event_that_does_not_fit_the_hand_over_topic_is_answered_here() -> None:
    bench = spilling()
    await bench.start()
    bench.producer.fail_next(TooLarge("no"), TooLarge("no"))
    await bench.send(event())
    await bench.idle()

    assert bench.on(TOPICS.handovers) == []
    assert (bench.result().attempts, bench.committed, bench.crashes) == (1, 1, [])
