"""The one list of doors in: kind of section -> what it makes."""

from collections.abc import Callable, Sequence

from contracts.settings.batch_jobs import BatchInput
from contracts.settings.ingress import IngressDoor
from contracts.topics import Topics
from gateways.ingress.base import Door
from gateways.ingress.sqs import SqsQueue
from producers.base import Producer

DOORS: dict[str, Callable[[str, IngressDoor, Topics, Producer, Sequence[BatchInput]], Door]] = {
    "sqs": SqsQueue,
}


def build(
    name: str, settings: IngressDoor, topics: Topics, producer: Producer, inputs: Sequence[BatchInput] = ()
) -> Door:
    """Return a door; nothing is started.

    Raises:
        ConfigError: a template cannot be used; names the door.
    """
    return DOORS[settings.kind](name, settings, topics, producer, inputs)
