"""Environments of the peers: a virtual environment each under build/peers/, with pinned requirements."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from contracts.settings import environment

FOLDER = Path(__file__).parent.parent.parent / "build" / "peers"
_LIMIT_S = 300.0


class NotInstallableError(Exception):
    """The environment cannot be made on this machine; the text says why."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, made once.

    Attributes:
        python: the interpreter that it needs, by name or path.
        requirements: pinned.
    """

    name: str
    python: str
    requirements: tuple[str, ...]

    def program(self, name: str) -> str:
        """Return the path of a program of the environment."""
        return str(FOLDER / self.name / "bin" / name)

    def install(self) -> None:
        """Make the environment, unless it is there with these requirements and this interpreter.

        Raises:
            NotInstallableError: no such interpreter, or a requirement that cannot be had.
        """
        stamp = FOLDER / self.name / "requirements.txt"
        python = interpreter(self.python)
        # Its own file too: sides that run on interpreters of different builds cannot be compared.
        wanted = "\n".join((f"# {Path(python).resolve()}", *self.requirements))
        if stamp.exists() and stamp.read_text("utf-8") == wanted:
            return
        FOLDER.mkdir(parents=True, exist_ok=True)
        _run((python, "-m", "venv", "--clear", str(stamp.parent)))
        _run((self.program("pip"), "install", "-q", "--disable-pip-version-check", *self.requirements))
        stamp.write_text(wanted, encoding="utf-8")


@dataclass(frozen=True)
class JavaEnvironment:
    """Classes of a peer's own sources and its libraries, by Maven.

    Attributes:
        name: folder under bench/peers, with pom.xml and src/main/java.
        requirements: what the pom asks for, for the figures.
    """

    name: str
    requirements: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """Start of the command line, with the main class."""
        home = FOLDER / self.name
        return ("java", "-Xmx1g", "-cp", f"{home / 'classes'}:{home / 'lib'}/*", "Job")

    def install(self) -> None:
        """Fetch the libraries, once, and compile.

        Raises:
            NotInstallableError: no Java, no Maven, or a library that cannot be had.
        """
        home, sources = FOLDER / self.name, Path(__file__).parent / self.name
        pom = sources / "pom.xml"
        stamp = home / "pom.xml"
        if not stamp.exists() or stamp.read_bytes() != pom.read_bytes():
            goal = ("dependency:copy-dependencies", f"-DoutputDirectory={home / 'lib'}")
            _run(("mvn", "-q", "-B", "-f", str(pom), *goal))
            stamp.write_bytes(pom.read_bytes())
        java = [str(path) for path in (sources / "src").rglob("*.java")]
        _run(("javac", "-d", str(home / "classes"), "-cp", f"{home / 'lib'}/*", *java))


def interpreter(name: str) -> str:
    """Return an interpreter of that version that really runs; version managers put names on the path that do not.

    Raises:
        NotInstallableError: there is none.
    """
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if name == ours:
        return sys.executable
    versions = Path(environment().get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
    minor = name.removeprefix("python")
    for candidate in (name, *(str(path) for path in versions.glob(f"{minor}.*/bin/{name}"))):
        try:
            subprocess.run((candidate, "-c", "import venv"), capture_output=True, check=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        return candidate
    msg = f"no {name} that runs"
    raise NotInstallableError(msg)


def _run(command: tuple[str, ...]) -> None:
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=_LIMIT_S, text=True)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or error.stdout or "").strip().splitlines()
        raise NotInstallableError(reason[-1] if reason else str(error)) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstallableError(str(error)) from error
