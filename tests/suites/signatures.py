"""What verification must do for every scheme, held against the sender's own library as signer and as second opinion."""

import abc
import contextlib
import functools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import BadSignature, InvalidPayload
from contracts.settings import HmacTemplate, PublicKeyTemplate, SourceSettings
from gateways.ingress.keys import Key
from gateways.ingress.schemes import SCHEMES, Scheme
from gateways.ingress.signatures import SignatureVerifier
from gateways.ingress.verifiers import build_verifier
from gateways.ingress.verifying import Incoming, Verified

Headers = dict[str, str]
Template = HmacTemplate | PublicKeyTemplate
_ODD_VALUES = [b"v1,", b"v1,AAAA", b"sha256=", b"t=1,v1=", b"t=,t=", b"v0=", b"1", b"9" * 400, b"sig=:AA==:", b"sig=()"]


def template_of(scheme: str) -> Template:
    """Return the template of a built-in scheme."""
    template = SCHEMES[scheme].template
    assert template is not None
    return template


def verify(
    template: Template,
    keys: Sequence[Key],
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    now: datetime | None = None,
) -> Verified:
    """Verify one request by a template."""
    return SignatureVerifier(Scheme(template), keys).verify(Incoming(headers, body), now or datetime.now(UTC))


def edited(value: str, position: int, text: str, *, is_insertion: bool) -> str:
    """Return a value with some characters put in, or put over others."""
    at = position % (len(value) + 1)
    return value[:at] + text + value[at + (0 if is_insertion else len(text)) :]


class SignatureSuite(abc.ABC):
    """Inherit it and say how the sender's own library signs and verifies.

    Attributes:
        section: of the source, without secrets and type.
        body: one that the sender may send.
        bodies: more of them.
        ambiguous: what a header that stands there twice may end in.
    """

    scheme: ClassVar[str]
    signature_header: ClassVar[str]
    section: ClassVar[dict[str, Any]] = {}
    body: ClassVar[str] = '{"amount": 100}'
    bodies: ClassVar[tuple[str, ...]] = ("{}", '{"a": "\u00fc\u2028"}', "", " ", "not json", "x" * 5000)
    ambiguous: ClassVar[tuple[type[Exception], ...]] = (InvalidPayload,)
    secret = "0123456789abcdef0123456789abcdef"
    other_secret = "fedcba9876543210fedcba9876543210"

    @abc.abstractmethod
    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        """Sign as the sender does."""

    @abc.abstractmethod
    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        """Ask the sender's own library; it may raise, which counts as no."""

    def key(self, secret: str, name: str = "current") -> Key:
        """Return the key that belongs to a configured secret."""
        return Key(name, secret.encode(), secret.encode())

    @classmethod
    @functools.cache
    def source(cls) -> SourceSettings:
        """Return the settings of the source."""
        document = {"scheme": cls.scheme, "type": "t", "secrets": [{"id": "a", "value": "env:A"}]}
        return SourceSettings.model_validate(document | cls.section)

    def query(self, body: bytes) -> bytes:
        """Return the query of the request's URL."""
        del body
        return b""

    def incoming(self, lines: Sequence[tuple[bytes, bytes]], body: bytes) -> Incoming:
        """Return a request."""
        return Incoming(lines, body, self.query(body))

    def verified(
        self, lines: Sequence[tuple[bytes, bytes]], body: bytes, *keys: Key, now: datetime | None = None
    ) -> Verified:
        """Verify as the gateway does."""
        verifier = build_verifier("shop", self.source(), keys or (self.key(self.secret),))
        return verifier.verify(self.incoming(lines, body), now or datetime.now(UTC))

    def is_accepted(self, body: bytes, headers: Headers, *keys: Key, now: datetime | None = None) -> bool:
        """Tell whether we accept; anything but a refusal of ours is an error."""
        with contextlib.suppress(BadSignature, InvalidPayload):
            self.verified(lines_of(headers), body, *keys, now=now)
            return True
        return False

    def test_what_the_library_signs_is_accepted_and_covers_the_body(self) -> None:
        for body in (self.body, *self.bodies):
            verified = self.verified(lines_of(self.sign(body, self.secret, datetime.now(UTC))), body.encode())

            assert verified.signed is not None

    @pytest.mark.parametrize("bit", range(8))
    def test_one_changed_bit_of_the_body_is_refused(self, bit: int) -> None:
        headers = self.sign(self.body, self.secret, datetime.now(UTC))
        changed = bytearray(self.body.encode())
        changed[bit] ^= 1 << bit

        assert not self.is_accepted(bytes(changed), headers)

    @pytest.mark.parametrize("change", [" ", "\n", "\ufeff"])
    def test_whitespace_beside_the_body_is_refused(self, change: str) -> None:
        headers = self.sign(self.body, self.secret, datetime.now(UTC))

        assert not self.is_accepted(self.body.encode() + change.encode(), headers)
        assert not self.is_accepted(change.encode() + self.body.encode(), headers)

    def test_another_secret_is_refused(self) -> None:
        headers = self.sign(self.body, self.other_secret, datetime.now(UTC))

        assert not self.is_accepted(self.body.encode(), headers)

    @pytest.mark.parametrize(("kept", "more"), [(0, ""), (3, ""), (6, ""), (-1, ""), (None, "0"), (None, "=")])
    def test_a_truncated_or_extended_signature_is_refused(self, kept: int | None, more: str) -> None:
        headers = self.sign(self.body, self.secret, datetime.now(UTC))
        changed = headers[self.signature_header][:kept] + more

        assert not self.is_accepted(self.body.encode(), headers | {self.signature_header: changed})

    def test_a_missing_signature_header_is_refused(self) -> None:
        headers = self.sign(self.body, self.secret, datetime.now(UTC))
        del headers[self.signature_header]

        assert not self.is_accepted(self.body.encode(), headers)

    def test_every_header_of_the_scheme_may_stand_there_once(self) -> None:
        headers = self.sign(self.body, self.secret, datetime.now(UTC))
        lines = lines_of(headers)
        for line in lines:
            with pytest.raises(self.ambiguous):
                self.verified([*lines, line], self.body.encode())

    def test_during_a_rotation_both_secrets_are_accepted_and_told_apart(self) -> None:
        now = datetime.now(UTC)
        keys = (self.key(self.other_secret, "old"), self.key(self.secret, "new"))
        for secret, name in ((self.secret, "new"), (self.other_secret, "old")):
            lines = lines_of(self.sign(self.body, secret, now))

            assert self.verified(lines, self.body.encode(), *keys).key_id == name

    def test_a_retired_key_is_refused_and_recognised(self) -> None:
        now = datetime.now(UTC)
        retired = self.key(self.secret)._replace(not_after=now - timedelta(seconds=1))
        lines = lines_of(self.sign(self.body, self.secret, now))

        with pytest.raises(BadSignature) as caught:
            self.verified(lines, self.body.encode(), retired, now=now)
        assert caught.value.detail == "retired_key"

    def test_a_key_before_its_time_is_refused_and_recognised(self) -> None:
        now = datetime.now(UTC)
        future = self.key(self.secret)._replace(not_before=now + timedelta(seconds=1))
        lines = lines_of(self.sign(self.body, self.secret, now))

        with pytest.raises(BadSignature) as caught:
            self.verified(lines, self.body.encode(), future, now=now)
        assert caught.value.detail == "key_not_yet_valid"

    @given(data=st.data())
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def test_no_edit_is_accepted_that_the_library_refuses(self, data: st.DataObject) -> None:
        headers, body = self.sign(self.body, self.secret, datetime.now(UTC)), self.body
        name = data.draw(st.sampled_from(["", *sorted(headers)]))
        text = data.draw(st.text(st.characters(codec="utf-8"), max_size=4))
        position, is_insertion = data.draw(st.integers(0, 200)), data.draw(st.booleans())
        if name:
            headers |= {name: edited(headers[name], position, text, is_insertion=is_insertion)}
        else:
            body = edited(body, position, text, is_insertion=is_insertion)
        if not self.is_accepted(body.encode(), headers):
            return

        alone = [headers | {self.signature_header: entry} for entry in self.entries(headers[self.signature_header])]
        assert any(self._is_library_content(body.encode(), one) for one in alone)

    def entries(self, value: str) -> list[str]:
        """Return header values with one signature each: libraries stumble over garbage beside a good one."""
        return [value]

    def _is_library_content(self, body: bytes, headers: Headers) -> bool:
        with contextlib.suppress(Exception):
            return self.library_accepts(body, headers)
        return False

    @given(data=st.data())
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def test_no_bytes_get_anything_but_a_refusal(self, data: st.DataObject) -> None:
        signed = self.sign(self.body, self.secret, datetime.now(UTC))
        names = [name.encode() for name in signed] + [b"webhook-id", b"svix-id", b"x-github-delivery"]
        values = st.binary(max_size=60) | st.sampled_from(
            [*_ODD_VALUES, *(value.encode() for value in signed.values())]
        )
        lines = data.draw(st.lists(st.tuples(st.sampled_from(names), values), max_size=6))
        body = data.draw(st.binary(max_size=60))

        with pytest.raises((BadSignature, InvalidPayload)):
            self.verified(lines, body)


def lines_of(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return header lines as a server gives them."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class StampedSuite(SignatureSuite):
    """Schemes that sign a timestamp."""

    stamp_header: ClassVar[str] = ""

    def with_stamp(self, headers: Headers, stamp: str) -> Headers:
        """Return the headers with another timestamp in its place."""
        return headers | {self.stamp_header: stamp}

    def detail(self, headers: Headers, now: datetime | None = None) -> str:
        """Return the private reason of the refusal."""
        with pytest.raises(BadSignature) as caught:
            self.verified(lines_of(headers), self.body.encode(), now=now)
        return caught.value.detail

    @pytest.mark.parametrize(
        ("offset_s", "detail"), [(-301, "stale"), (-86_400, "stale"), (302, "in_future"), (3600, "in_future")]
    )
    def test_a_stamp_outside_the_tolerance_is_refused_both_ways(self, offset_s: int, detail: str) -> None:
        now = datetime.now(UTC)

        assert self.detail(self.sign(self.body, self.secret, now + timedelta(seconds=offset_s)), now) == detail

    @pytest.mark.parametrize("offset_s", [-298, 298])
    def test_a_stamp_inside_the_tolerance_is_accepted(self, offset_s: int) -> None:
        now = datetime.now(UTC)
        headers = self.sign(self.body, self.secret, now + timedelta(seconds=offset_s))

        assert self.is_accepted(self.body.encode(), headers, now=now)

    def test_a_stamp_in_milliseconds_is_recognised(self) -> None:
        headers = self.sign(self.body, self.secret, datetime.now(UTC))
        stamp = str(int(datetime.now(UTC).timestamp() * 1000))

        assert self.detail(self.with_stamp(headers, stamp)) == "stamp_in_ms"

    @pytest.mark.parametrize(
        "stamp",
        [
            "",
            "1e9",
            "+1",
            " 1 ",
            "1_0",
            "1.0",
            "-1",
            "nan",
            "\u0661\u0662",
            "9" * 400,
            "01700000000",
            "0",
            "\x00",
            "1\n",
        ],
    )
    def test_an_odd_stamp_is_refused(self, stamp: str) -> None:
        headers = self.sign(self.body, self.secret, datetime.now(UTC))

        assert self.detail(self.with_stamp(headers, stamp)).endswith("timestamp")

    @pytest.mark.parametrize("form", ["+{}", "{}.0", "0{}", " {}", "{}e0", "{}_0"])
    def test_another_spelling_of_the_right_stamp_is_refused(self, form: str) -> None:
        stamp = form.format(int(datetime.now(UTC).timestamp()))
        headers = self.sign(self.body, self.secret, datetime.now(UTC))

        assert not self.is_accepted(self.body.encode(), self.with_stamp(headers, stamp))
