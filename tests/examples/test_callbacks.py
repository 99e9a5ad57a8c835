"""The example's receiver takes what the door sends, once, and nothing else."""

import asyncio
import http.client
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from contracts.settings import load
from contracts.settings.egress import CallbackDoor
from examples.callbacks import receiver
from gateways.egress.base import DELIVERED, Later, Verdict
from gateways.egress.notify import Notify
from gateways.egress.notify_signing import new_ed25519_pair, new_hmac_secret
from tests.suites.egress import result_item
from tests.support import ROOT, ChildProcess, eventually

FOLDER = ROOT / "examples/callbacks"


class Desk:
    """The receiver, with one key of each kind."""

    def __init__(self, program: ChildProcess, secrets: Sequence[str]) -> None:
        self.program = program
        self.secrets = secrets
        self.port = int(program.wait_for(r"receiving on port (\d+)")[1])

    async def deliver(self, folder: Path, secret: str, *numbers: int) -> list[Verdict]:
        file = folder / "secret"
        file.write_text(secret)
        section = {
            "kind": "callback",
            "url": f"http://127.0.0.1:{self.port}/penstock",
            "secrets": [{"id": "k", "value": f"file:{file}"}],
            "allow_http": True,
            "allow_networks": ["127.0.0.1/32"],
            "ports": [self.port],
        }
        door = Notify("desk", CallbackDoor.model_validate(section))
        await door.start()
        try:
            return [(await door.deliver([result_item(number)]))[0] for number in numbers]
        finally:
            await door.aclose()


@pytest.fixture
def desk() -> Iterator[Desk]:
    hmac, (private, public) = new_hmac_secret(), new_ed25519_pair()
    with ChildProcess("examples.callbacks.receiver", "0", env={"CALLBACK_KEYS": f"{hmac} {public}"}) as program:
        yield Desk(program, (hmac, private))


@pytest.mark.process
async def test_both_kinds_of_keys_are_verified_and_a_repeat_is_taken_once(desk: Desk, tmp_path: Path) -> None:
    hmac, private = desk.secrets

    assert await desk.deliver(tmp_path, hmac, 1, 2) == [DELIVERED] * 2
    assert await desk.deliver(tmp_path, private, 2, 3) == [DELIVERED] * 2

    desk.program.wait_for("penstock.result.v1 crm e3 ")
    assert [desk.program.output.count(f" crm e{number} ") for number in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.process
async def test_callbacks_that_come_at_once_have_a_line_each(desk: Desk, tmp_path: Path) -> None:
    hmac, _ = desk.secrets

    for first in range(1, 80, 8):
        await asyncio.gather(*(desk.deliver(tmp_path, hmac, number) for number in range(first, first + 8)))

    eventually(lambda: desk.program.output.count("crm e") >= 80)
    _, *lines = desk.program.output.splitlines()
    assert [line.count("penstock.result.v1 crm e") for line in lines] == [1] * 80


@pytest.mark.process
async def test_a_callback_signed_with_another_key_is_not_taken(desk: Desk, tmp_path: Path) -> None:
    for stranger in (new_hmac_secret(), new_ed25519_pair()[0]):
        assert await desk.deliver(tmp_path, stranger, 1) == [Later("status_401", "answered 401")]

    assert "crm" not in desk.program.output


def test_the_examples_configuration_is_valid() -> None:
    settings = load(FOLDER / "penstock.yaml", {})

    assert isinstance(settings.egress["desk"], CallbackDoor)


@pytest.mark.process
@pytest.mark.parametrize(("given", "status"), [("many", 411), ("-1", 411), ("2000001", 413), ("9" * 5000, 413)])
def test_a_length_that_cannot_be_read_is_refused_and_the_connection_ends(desk: Desk, given: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", desk.port, timeout=10)
    connection.putrequest("POST", "/penstock")
    connection.putheader("Content-Length", given)
    connection.endheaders()

    response = connection.getresponse()

    assert (response.status, response.will_close) == (status, True)
    connection.close()
    assert "Traceback" not in desk.program.output


@pytest.mark.parametrize(
    ("keys", "args", "said"),
    [
        ([], [], "CALLBACK_KEYS is not set: "),
        (["whsec_!!", "abc"], [], "CALLBACK_KEYS: no key that can be used: whsec_!!, abc..."),
        (["whpk_YWJj"], [], "CALLBACK_KEYS: no key that can be used: whpk_YWJ..."),
        (["whsec_YWJj"], ["x"], "x: expected a port, 0 to 65535"),
        (["whsec_YWJj"], ["70000"], "70000: expected a port, 0 to 65535"),
        (["whsec_YWJj"], ["TAKEN"], "Address already in use"),
    ],
)
def test_what_keeps_the_receiver_from_starting_is_one_line(
    keys: list[str], args: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.Receiver, "keys", keys)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr("sys.argv", ["receiver.py", *(port if arg == "TAKEN" else arg for arg in args)])
        with pytest.raises(SystemExit) as ended:
            receiver.main()

    assert said in str(ended.value.code)
    assert "\n" not in str(ended.value.code)
