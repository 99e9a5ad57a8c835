"""The one list of handshakes: which of them a source's settings ask for, and their answers."""

from collections.abc import Sequence
from datetime import UTC, datetime

from contracts.settings import SourceSettings
from gateways.ingress.handshakes.base import Handshake, HandshakeAnswer, HandshakeRequest, Verify
from gateways.ingress.handshakes.cloudevents import OptionsHandshake
from gateways.ingress.handshakes.crc import CrcGuard, CrcHandshake
from gateways.ingress.handshakes.graph import GraphHandshake
from gateways.ingress.handshakes.salesforce_ens import EnsRegistration
from gateways.ingress.handshakes.slack import SlackHandshake
from gateways.ingress.handshakes.zoom import ZoomHandshake
from gateways.ingress.keys import Key


class Handshakes:
    """What one source answers itself.

    Args:
        name: of the source.
        source: its settings.
        keys: its keys.
        verify: how it verifies.

    Attributes:
        methods: which its URL has beside POST.
        is_any: whether there is one at all.
    """

    def __init__(self, name: str, source: SourceSettings, keys: Sequence[Key], verify: Verify) -> None:
        wanted = source.handshakes
        self.methods = (("GET", "HEAD") if wanted.crc else ()) + (("OPTIONS",) if wanted.cloudevents else ())
        found: list[Handshake] = []
        # Graph subscribes to no URL that has not passed it.
        if wanted.graph or source.scheme == "microsoft-graph":
            found.append(GraphHandshake())
        if wanted.salesforce_ens:
            found.append(EnsRegistration(name, wanted.salesforce_ens))
        if wanted.slack:
            found.append(SlackHandshake(verify))
        if wanted.zoom:
            found.append(ZoomHandshake(verify, keys))
        if wanted.crc:
            found += [CrcHandshake(name, keys), CrcGuard(name)]
        if wanted.cloudevents:
            found.append(OptionsHandshake(wanted.cloudevents, ("POST", *self.methods)))
        self._found = tuple(found)
        self.is_any = bool(found)

    def answer(self, request: HandshakeRequest, now: datetime | None = None) -> HandshakeAnswer | None:
        """Return the answer to a handshake; None for what is to become an event.

        Raises:
            BadSignature: it must be signed and is not, or its signature proves nothing here.
            InvalidPayload: it cannot be answered.
            Forbidden: this sending system may not deliver here.
        """
        method = "GET" if request.method == "HEAD" else request.method
        for one in self._found:
            if one.method == method:
                answer = one.answer(request, now or datetime.now(UTC))
                if answer is not None:
                    return answer
        return None
