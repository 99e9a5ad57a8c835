"""The checks of `penstock doctor`, one function each."""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

from contracts.errors import ConfigError, PenstockError
from contracts.settings import BedrockProvider, Settings, load

State = Literal["ok", "hint", "missing"]
_COMMAND_LIMIT_S = 10.0
_OLDEST_PYTHON = (3, 11)
# All other doors out are AWS's, and all doors in.
_DOORS_ELSEWHERE = frozenset({"callback", "caller-callback", "salesforce"})
# Where botocore looks, in its order; named here without asking any service (checked 2026-11).
_AWS_VARIABLES = (
    ("AWS_ACCESS_KEY_ID", "environment variable AWS_ACCESS_KEY_ID"),
    ("AWS_BEARER_TOKEN_BEDROCK", "environment variable AWS_BEARER_TOKEN_BEDROCK"),
    ("AWS_PROFILE", "profile named by AWS_PROFILE"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "web identity token (AWS_WEB_IDENTITY_TOKEN_FILE)"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "container credentials"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "container credentials"),
)


class Finding(NamedTuple):
    """What a check found: `missing` is what every command needs, `hint` what some do."""

    name: str
    state: State
    text: str
    advice: str = ""


Check = Callable[[], Finding]


def all_checks(config: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield the checks in the order in which their answers help."""
    yield python
    yield packages
    settings: Settings | None = None
    try:
        settings = load(config, environ)
        yield partial(_config_fine, settings)
    except ConfigError as error:
        yield partial(_config_broken, str(error))
    if settings is not None:
        yield partial(kafka, settings)
        yield partial(topics, settings)
    yield partial(
        command, "docker", ("docker", "compose", "version"), "docker compose up", "install Docker with compose"
    )
    yield partial(command, "java", ("java", "-version"), "make kafka (without Docker)", "install a JRE, 17 or newer")
    yield partial(command, "maven", ("mvn", "--version"), "make kafka (without Docker)", "install Apache Maven")
    yield partial(aws, settings, environ)


def python() -> Finding:
    """Check the interpreter."""
    text = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("python", "missing", text, "Python 3.11 or newer is needed")
    if is_slow(sysconfig.get_config_var("CONFIG_ARGS") or "", _mapped()):
        advice = "take one built with --enable-optimizations, such as Debian's: docs/operations.md"
        return Finding("python", "hint", f"{text} ({sys.executable}) was built without optimisation", advice)
    return Finding("python", "ok", f"{text} ({sys.executable})")


def is_slow(configured: str, mapped: str) -> bool:
    """Tell whether an interpreter needs more CPU than it would have to.

    Built as a shared library without --enable-optimizations, every call inside of CPython goes through a table and
    nothing is inlined.

    Args:
        configured: the arguments of CPython's `configure`.
        mapped: the files in the process's memory, as /proc/self/maps lists them; empty where there is no such file.
    """
    return "--enable-optimizations" not in configured and "/libpython3" in mapped


def _mapped() -> str:
    try:
        return Path("/proc/self/maps").read_text("utf-8")
    except OSError:
        return ""


def packages() -> Finding:
    """Check that the distribution and what it depends on are installed."""
    try:
        names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in requires("penstock") or []
                 if "extra ==" not in line and "sys_platform" not in line]  # fmt: skip
    except PackageNotFoundError:
        return Finding("packages", "missing", "the distribution `penstock` is not installed", "make install")
    absent = [name for name in names if not _is_installed(name)]
    if absent:
        return Finding("packages", "missing", f"not installed: {', '.join(absent)}", "make install")
    return Finding("packages", "ok", f"penstock {version('penstock')} and its {len(names)} dependencies")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _config_fine(settings: Settings) -> Finding:
    from gateways.cli.config_check import counts

    return Finding("configuration", "ok", counts(settings))


def _config_broken(problems: str) -> Finding:
    advice = "penstock config check; the working example is penstock.yaml in the project's root folder"
    return Finding("configuration", "missing", problems, advice)


def kafka(settings: Settings) -> Finding:
    """Check that a broker answers, and that the topics are as they should be."""
    from gateways.cli.reading import TopicReader

    servers = ",".join(settings.kafka.bootstrap_servers)
    try:
        with TopicReader(settings.kafka, (), from_beginning=False) as reader:
            count = reader.broker_count()
    except PenstockError as error:
        advice = (
            "docker compose up -d kafka, which is at PENSTOCK_KAFKA__BOOTSTRAP_SERVERS=localhost:29092, or make kafka; "
            "`penstock demo` and `penstock up` bring their own"
        )
        return Finding("kafka", "hint", str(error), advice)
    return Finding("kafka", "ok", f"{servers}, {count} broker{'' if count == 1 else 's'}")


def topics(settings: Settings) -> Finding:
    """Check that the topics are as the configuration wants them, where Kafka answers."""
    from producers.admin import TopicAdmin
    from producers.topic_plan import drifts, wanted_topics

    if settings.kafka.embedded:
        return Finding("topics", "ok", "embedded broker: topics appear by themselves")
    wanted = wanted_topics(settings)
    try:
        found = TopicAdmin(settings.kafka).find((want.topic.name for want in wanted), with_config=True)
    except PenstockError as error:
        return Finding("topics", "hint", f"not looked at: {error}")
    differences = drifts(wanted, found, settings)
    if differences:
        text = "\n".join(f"{drift.topic}: {drift.text}" for drift in differences)
        return Finding(
            "topics", "hint", text, "penstock topics create makes missing ones; it never changes existing ones"
        )
    return Finding("topics", "ok", f"{len(found)} topics are as configured")


def command(name: str, args: tuple[str, ...], needed_for: str, advice: str) -> Finding:
    """Check that a program is there and runs."""
    if shutil.which(args[0]) is None:
        return Finding(name, "hint", f"not found; needed for {needed_for}", advice)
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=_COMMAND_LIMIT_S, check=False)  # noqa: S603 - fixed arguments
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "hint", f"does not run: {error}; needed for {needed_for}", advice)
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or ["(no output)"]
    if done.returncode != 0:
        return Finding(name, "hint", f"{' '.join(args)}: {lines[0]}; needed for {needed_for}", advice)
    return Finding(name, "ok", re.sub(r"\x1b\[[0-9;]*m", "", lines[0]))


def aws(settings: Settings | None, environ: Mapping[str, str]) -> Finding:
    """Check where AWS credentials would come from; no call is made, so they may still be refused."""
    found = [text for variable, text in _AWS_VARIABLES if environ.get(variable)]
    home = _home(environ)
    files = (
        Path(environ.get("AWS_SHARED_CREDENTIALS_FILE", home / ".aws/credentials")),
        Path(environ.get("AWS_CONFIG_FILE", home / ".aws/config")),
    )
    found += [str(path) for path in files if path.is_file()]
    if found:
        return Finding("aws", "ok", f"credentials would come from: {found[0]} (not tried)")
    wanted = settings is not None and _uses_aws(settings)
    advice = "aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on AWS itself the instance's role is used"
    text = "no credentials visible" + ("" if wanted else "; the configuration has nothing that needs them")
    return Finding("aws", "hint", text, advice if wanted else "")


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME", "~")).expanduser()
    except RuntimeError:
        # Nobody the system knows, as under an arbitrary user id in a container.
        return Path("/")


def _uses_aws(settings: Settings) -> bool:
    """Tell whether a provider, a door, an S3 object or a secret asks AWS, with credentials found as botocore does."""
    refs = [secret.value for source in settings.sources.values() for secret in source.secrets]
    refs += [api_key.key for api_key in settings.gateway.api_keys]
    return (
        any(isinstance(one, BedrockProvider) and one.bearer_token is None for one in settings.providers.values())
        or any(door.kind not in _DOORS_ELSEWHERE for door in settings.egress.values())
        or bool(settings.ingress or settings.batch_jobs.inputs)
        or any(ref.kind == "aws-sm" for ref in refs)
    )
