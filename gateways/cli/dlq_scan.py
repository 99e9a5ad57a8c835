"""Finds the letters that are meant, and reads them again; what both passes hold does not grow with the records."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from gateways.cli.dlq_chosen import Chosen
from gateways.cli.dlq_filters import Filter
from gateways.cli.dlq_letters import Letter, read_letter
from gateways.cli.dlq_progress import Told
from gateways.cli.dlq_topic import LetterTopic, Span


def find(
    topic: LetterTopic, wanted: Filter, see: Callable[[Letter], None] = lambda _: None
) -> tuple[Chosen, Chosen, list[Span]]:
    """Return the letters that are meant, those that only another `--app` would mean, and what has been read.

    Args:
        topic: to its end as it is now.
        wanted: which letters.
        see: is given every letter that is meant, resolved later or not.

    Raises:
        LogUnavailable: the topic cannot be read.
    """
    spans = topic.spans(wanted.since_ms, wanted.partition)
    chosen, others, of_any = Chosen(spans), Chosen(spans if wanted.app else ()), replace(wanted, app=())
    with Told("reading dead letters", sum(span.end - span.start for span in spans)) as told:
        for records in topic.read(spans, told.advance):
            for record in records:
                found = read_letter(record)
                if not isinstance(found, Letter):
                    chosen.resolve(record.partition, found)
                    others.resolve(record.partition, found)
                elif wanted.matches(found):
                    chosen.add(found)
                    see(found)
                elif wanted.app and of_any.matches(found):
                    others.add(found)
    return chosen, others, spans


def catch_up(topic: LetterTopic, chosen: Chosen, read: list[Span]) -> None:
    """Take note of what others have resolved since.

    Raises:
        LogUnavailable: the topic cannot be read.
    """
    ends = {span.partition: span.end for span in read}
    newer = [Span(now.partition, ends[now.partition], now.end) for now in topic.spans() if now.partition in ends]
    for records in topic.read(newer):
        for record in records:
            found = read_letter(record)
            if not isinstance(found, Letter):
                chosen.resolve(record.partition, found)


def letters(topic: LetterTopic, chosen: Chosen, *, resolved: bool = False) -> Iterator[Letter | None]:
    """Yield the chosen letters that are open, or all, those of a partition in order; None while nothing comes.

    Raises:
        LogUnavailable: the topic cannot be read.
    """
    for records in topic.read(chosen.spans(resolved=resolved)):
        if not records:
            yield None
        for record in records:
            found = read_letter(record)
            if isinstance(found, Letter):
                state = chosen.state(found)
                if state == "open" or (resolved and state):
                    yield found
