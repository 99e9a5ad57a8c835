"""What verification must do for every scheme, held against the sender's own library as signer and as second opinion."""

import abc
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import BadSignature, InvalidPayload
from contracts.settings import HmacTemplate
from gateways.ingress.keys import Key
from gateways.ingress.schemes import SCHEMES
from gateways.ingress.signatures import HmacVerifier
from gateways.ingress.verifying import Incoming, Verified

Headers = dict[str, str]
BODIES = ["{}", '{"a": "\u00fc\u2028"}', "", " ", "not json", "x" * 5000]


def verify(
    template: HmacTemplate,
    keys: Sequence[Key],
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    now: datetime | None = None,
) -> Verified:
    """Verify one request by a template."""
    return HmacVerifier(template, keys).verify(Incoming(headers, body), now or datetime.now(UTC))


def edited(value: str, position: int, text: str, *, is_insertion: bool) -> str:
    """Return a value with some characters put in, or put over others."""
    at = position % (len(value) + 1)
    return value[:at] + text + value[at + (0 if is_insertion else len(text)) :]


class SignatureSuite(abc.ABC):
    """Inherit it and say how the sender's own library signs and verifies."""

    scheme: ClassVar[str]
    signature_header: ClassVar[str]
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

    @property
    def template(self) -> HmacTemplate:
        """Return the template of the scheme."""
        return SCHEMES[self.scheme].template

    def is_accepted(self, body: bytes, headers: Headers, *keys: Key, now: datetime | None = None) -> bool:
        """Tell whether we accept; anything but a refusal of ours is an error."""
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        with contextlib.suppress(BadSignature, InvalidPayload):
            verify(self.template, keys or (self.key(self.secret),), lines, body, now)
            return True
        return False

    @pytest.mark.parametrize("body", BODIES)
    def test_what_the_library_signs_is_accepted(self, body: str) -> None:
        headers = self.sign(body, self.secret, datetime.now(UTC))

        assert self.is_accepted(body.encode(), headers)

    @pytest.mark.parametrize("bit", range(8))
    def test_one_changed_bit_of_the_body_is_refused(self, bit: int) -> None:
        body = '{"amount": 100}'
        headers = self.sign(body, self.secret, datetime.now(UTC))
        changed = bytearray(body.encode())
        changed[bit] ^= 1 << bit

        assert not self.is_accepted(bytes(changed), headers)

    def test_one_changed_bit_of_any_character_of_the_signature_is_refused(self) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC))
        value = headers[self.signature_header]
        for at in range(value.rfind("=", 0, -3) + 1 if "=" in value[:-3] else 3, len(value)):
            changed = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]

            assert not self.is_accepted(b"{}", headers | {self.signature_header: changed}), changed

    @pytest.mark.parametrize("change", [" ", "\n", "\ufeff"])
    def test_whitespace_beside_the_body_is_refused(self, change: str) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC))

        assert not self.is_accepted(b"{}" + change.encode(), headers)
        assert not self.is_accepted(change.encode() + b"{}", headers)

    def test_another_secret_is_refused(self) -> None:
        headers = self.sign("{}", self.other_secret, datetime.now(UTC))

        assert not self.is_accepted(b"{}", headers)

    @pytest.mark.parametrize(("kept", "more"), [(0, ""), (3, ""), (6, ""), (-1, ""), (None, "0"), (None, "=")])
    def test_a_truncated_or_extended_signature_is_refused(self, kept: int | None, more: str) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC))
        changed = headers[self.signature_header][:kept] + more

        assert not self.is_accepted(b"{}", headers | {self.signature_header: changed})

    def test_a_missing_signature_header_is_refused(self) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC))
        del headers[self.signature_header]

        assert not self.is_accepted(b"{}", headers)

    def test_every_header_of_the_scheme_may_stand_there_once(self) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC))
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        for line in lines:
            with pytest.raises(InvalidPayload):
                verify(self.template, [self.key(self.secret)], [*lines, line], b"{}")

    def test_during_a_rotation_both_secrets_are_accepted_and_told_apart(self) -> None:
        now = datetime.now(UTC)
        keys = (self.key(self.other_secret, "old"), self.key(self.secret, "new"))
        for secret, name in ((self.secret, "new"), (self.other_secret, "old")):
            lines = [(header.encode(), value.encode()) for header, value in self.sign("{}", secret, now).items()]

            assert verify(self.template, keys, lines, b"{}").key_id == name

    def test_a_retired_key_is_refused_and_recognised(self) -> None:
        now = datetime.now(UTC)
        retired = self.key(self.secret)._replace(not_after=now - timedelta(seconds=1))
        lines = [(name.encode(), value.encode()) for name, value in self.sign("{}", self.secret, now).items()]

        with pytest.raises(BadSignature) as caught:
            verify(self.template, [retired], lines, b"{}", now)
        assert caught.value.detail == "retired_key"

    def test_a_key_before_its_time_is_refused_and_recognised(self) -> None:
        now = datetime.now(UTC)
        future = self.key(self.secret)._replace(not_before=now + timedelta(seconds=1))
        lines = [(name.encode(), value.encode()) for name, value in self.sign("{}", self.secret, now).items()]

        with pytest.raises(BadSignature) as caught:
            verify(self.template, [future], lines, b"{}", now)
        assert caught.value.detail == "key_not_yet_valid"

    @given(data=st.data())
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def test_no_edit_is_accepted_that_the_library_refuses(self, data: st.DataObject) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC))
        name = data.draw(st.sampled_from(sorted(headers)))
        text = data.draw(st.text(st.characters(codec="utf-8"), max_size=4))
        value = edited(headers[name], data.draw(st.integers(0, 200)), text, is_insertion=data.draw(st.booleans()))
        changed = headers | {name: value}
        if not self.is_accepted(b"{}", changed):
            return

        alone = [changed | {self.signature_header: entry} for entry in self.entries(changed[self.signature_header])]
        assert any(self._is_library_content(b"{}", one) for one in alone)

    def entries(self, value: str) -> list[str]:
        """Return header values with one signature each: libraries stumble over garbage beside a good one."""
        return [value]

    def _is_library_content(self, body: bytes, headers: Headers) -> bool:
        with contextlib.suppress(Exception):
            return self.library_accepts(body, headers)
        return False

    @given(
        lines=st.lists(
            st.tuples(
                st.sampled_from(
                    [b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"svix-id", b"x-hub-signature-256",
                     b"x-github-delivery", b"stripe-signature", b"x-slack-signature", b"x-slack-request-timestamp"]
                ),
                st.binary(max_size=60)
                | st.sampled_from([b"v1,", b"v1,AAAA", b"sha256=", b"t=1,v1=", b"t=,t=", b"v0=", b"1", b"9" * 400]),
            ),
            max_size=6,
        ),
        body=st.binary(max_size=60),
    )  # fmt: skip
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def test_no_bytes_get_anything_but_a_refusal(self, lines: list[tuple[bytes, bytes]], body: bytes) -> None:
        scheme = SCHEMES[self.scheme]
        with pytest.raises((BadSignature, InvalidPayload)):
            HmacVerifier(scheme.template, [self.key(self.secret)], scheme.twins).verify(
                Incoming(lines, body), datetime.now(UTC)
            )


class StampedSuite(SignatureSuite):
    """Schemes that sign a timestamp."""

    @abc.abstractmethod
    def with_stamp(self, headers: Headers, stamp: str) -> Headers:
        """Return the headers with another timestamp in its place."""

    def detail(self, headers: Headers, now: datetime | None = None) -> str:
        """Return the private reason of the refusal."""
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        with pytest.raises(BadSignature) as caught:
            verify(self.template, [self.key(self.secret)], lines, b"{}", now)
        return caught.value.detail

    @pytest.mark.parametrize(
        ("offset_s", "detail"), [(-301, "stale"), (-86_400, "stale"), (302, "in_future"), (3600, "in_future")]
    )
    def test_a_stamp_outside_the_tolerance_is_refused_both_ways(self, offset_s: int, detail: str) -> None:
        now = datetime.now(UTC)

        assert self.detail(self.sign("{}", self.secret, now + timedelta(seconds=offset_s)), now) == detail

    @pytest.mark.parametrize("offset_s", [-298, 298])
    def test_a_stamp_inside_the_tolerance_is_accepted(self, offset_s: int) -> None:
        now = datetime.now(UTC)
        headers = self.sign("{}", self.secret, now + timedelta(seconds=offset_s))

        assert self.is_accepted(b"{}", headers, now=now)

    def test_a_stamp_in_milliseconds_is_recognised(self) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC))
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
        headers = self.sign("{}", self.secret, datetime.now(UTC))

        assert self.detail(self.with_stamp(headers, stamp)).endswith("timestamp")

    @pytest.mark.parametrize("form", ["+{}", "{}.0", "0{}", " {}", "{}e0", "{}_0"])
    def test_another_spelling_of_the_right_stamp_is_refused(self, form: str) -> None:
        stamp = form.format(int(datetime.now(UTC).timestamp()))
        headers = self.sign("{}", self.secret, datetime.now(UTC))

        assert not self.is_accepted(b"{}", self.with_stamp(headers, stamp))
