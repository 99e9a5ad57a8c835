"""The section of batch jobs."""

import re
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from contracts.settings import build, parse

TEXT = """\
version: 1
batch_jobs:
  inputs:
    - name: nightly
      bucket: bucket-a
      key: "{key}"
      output: {output}
"""


def load(key: str, output: str) -> None:
    build(parse(TEXT.format(key=key, output=output), "penstock.yaml"), {}, base=Path())


@pytest.mark.parametrize(
    ("key", "output"), [("*", "s3://bucket-a/out"), ("*.jsonl", "s3://bucket-a"), ("o*", "s3://bucket-a/out/")]
)
def test_results_that_would_be_inputs_again_are_refused_with_file_and_line(key: str, output: str) -> None:
    with pytest.raises(ConfigError, match=r"penstock.yaml:6: batch_jobs.inputs\[0\].key: .* does not match below"):
        load(key, output)


@pytest.mark.parametrize(("key", "output"), [("in/*", "s3://bucket-a/out"), ("*", "s3://bucket-b")])
def test_results_beside_the_inputs_are_fine(key: str, output: str) -> None:
    load(key, output)


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ("body", "penstock.yaml:6: ingress.objects.envelope: found 'body', allowed: s3 or eventbridge"),
        ("s3", "penstock.yaml:7: ingress.objects.batch_jobs: found true, allowed: false, or sections under"),
    ],
)
def test_a_door_that_cannot_announce_jobs_is_refused_with_file_and_line(envelope: str, said: str) -> None:
    text = (
        "version: 1\ningress:\n  objects:\n    kind: sqs\n"
        f"    queue_url: https://sqs.example/1/q\n    envelope: {envelope}\n    batch_jobs: true\n"
    )

    with pytest.raises(ConfigError, match=re.escape(said)):
        build(parse(text, "penstock.yaml"), {}, base=Path())
