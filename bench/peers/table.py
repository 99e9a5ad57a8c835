"""The peers: what each needs, what it promises, and who is left out and why."""

from bench.peers.environments import FOLDER, Environment, JavaEnvironment
from bench.sides import Side

_HTTP = ("aiohttp==3.14.5", "uvloop==0.23.0")
_FAUST = ("faust-streaming==0.15.3", "aiokafka==0.14.0", "cramjam==2.14.0")
# (folder under bench/peers, ordered per key, environment)
PEERS: tuple[tuple[str, bool, Environment | JavaEnvironment], ...] = (
    ("parallel-consumer", True, JavaEnvironment("parallel-consumer", ("parallel-consumer-vertx 0.5.3.3",))),
    ("faust", False, Environment("faust", "python3.11", (*_FAUST, *_HTTP))),
    ("faststream", False, Environment("faststream", "python3.11", ("faststream[confluent]==0.7.8", *_HTTP))),
    ("bytewax", True, Environment("bytewax", "python3.12", ("bytewax==0.21.1", "confluent-kafka==2.16.1", *_HTTP))),
    ("pyrallel", True, Environment("pyrallel", "python3.12", ("pyrallel-consumer==1.0.0", *_HTTP))),
)
LEFT_OUT = {
    "Redpanda Connect": "comes as a binary from outside the package registries",
}


def peer(folder: str, ordered: bool, environment: Environment | JavaEnvironment) -> Side:
    """Return a peer, its environment made if need be.

    Raises:
        NotInstallableError: it cannot be had on this machine.
    """
    environment.install()
    versions = " ".join(environment.requirements)
    if isinstance(environment, JavaEnvironment):
        return Side(folder, ordered, environment.command, versions)
    script = FOLDER.parent.parent / "bench" / "peers" / folder / "job.py"
    return Side(folder, ordered, (environment.program("python"), str(script)), versions)
