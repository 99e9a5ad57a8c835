"""Gets the Kafka server's jars from Maven Central through the Maven client, once per version and user.

Blocking: the first call downloads about 130 MB.
Writes: the user's cache folder, penstock/kafka-<version>.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.kafkalab.broker import KafkaUnavailableError

# Kafka 4 brokers need Java 17 (Apache Kafka 4.0 upgrade notes, checked 2026-11).
MIN_JAVA = 17
DOWNLOAD_LIMIT_S = 600.0

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>penstock</groupId><artifactId>kafkalab</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def find_java() -> str:
    """Return the path of a Java that can run the broker.

    Raises:
        KafkaUnavailableError: when there is none, or it is too old.
    """
    java = shutil.which("java")
    if java is None:
        msg = f"no java on the PATH: install Java {MIN_JAVA} or newer"
        raise KafkaUnavailableError(msg)
    run = subprocess.run((java, "-version"), capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', run.stderr + run.stdout)
    if found is None or int(found[1]) < MIN_JAVA:
        first_line = (run.stderr + run.stdout).strip().partition("\n")[0]
        msg = f"Kafka needs Java {MIN_JAVA} or newer, {java} says: {first_line or 'nothing'}"
        raise KafkaUnavailableError(msg)
    return java


def jar_folder(version: str) -> Path:
    """Return the folder with the server's jars, downloading them when they are not there yet.

    Raises:
        KafkaUnavailableError: when Maven is missing or fails.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
    folder = cache / f"kafka-{version}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="kafka-jars-", dir=cache) as scratch:
            _download(version, Path(scratch))
            _move_into_place(Path(scratch) / "libs", folder)
    return folder


def _download(version: str, scratch: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        msg = "no mvn on the PATH: install Apache Maven, it fetches the Kafka jars once"
        raise KafkaUnavailableError(msg)
    pom = scratch / "pom.xml"
    pom.write_text(_POM.format(version=version), encoding="utf-8")
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={scratch / 'libs'}", "-DincludeScope=runtime")
    try:
        run = subprocess.run(
            (maven, "-q", "-B", "-f", str(pom), *goal),
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"mvn did not fetch Kafka {version} within {DOWNLOAD_LIMIT_S:g} s"
        raise KafkaUnavailableError(msg) from error
    if run.returncode != 0:
        errors = [line for line in (run.stdout + run.stderr).splitlines() if "ERROR" in line]
        msg = f"mvn could not fetch Kafka {version}: {errors[0] if errors else 'exit code ' + str(run.returncode)}"
        raise KafkaUnavailableError(msg)


def _move_into_place(libs: Path, folder: Path) -> None:
    try:
        libs.rename(folder)
    except OSError:
        # Another process was faster; its folder is complete, because it got there by the same rename.
        if not folder.is_dir():
            raise
