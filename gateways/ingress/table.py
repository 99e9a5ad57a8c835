"""The one list of doors in: kind of section -> what it makes."""

from collections.abc import Callable

from contracts.settings.ingress import IngressDoor
from contracts.topics import Topics
from gateways.ingress.base import Door
from gateways.ingress.sqs import SqsQueue
from producers.base import Producer

DOORS: dict[str, Callable[[str, IngressDoor, Topics, Producer], Door]] = {
    "sqs": SqsQueue,
}


def build(name: str, settings: IngressDoor, topics: Topics, producer: Producer) -> Door:
    """Return a door; nothing is started.

    Raises:
        ConfigError: a template cannot be used; names the door.
    """
    return DOORS[settings.kind](name, settings, topics, producer)
