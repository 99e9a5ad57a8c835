"""Joins an input with its outcomes: one line of output for each line of input, in the order of the input.

Blocking: reads the input, writes three files beside each other, the manifest last.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from contracts.batch_jobs import BatchJob
from contracts.codec import decode_json
from contracts.errors import Undecodable
from contracts.payloads import InferenceResult, OutcomeMarker
from contracts.settings.batch_jobs import OUTPUTS
from gateways.batch.lines import Line, Lines
from gateways.batch.outcomes import Outcome, Outcomes

Status = Literal["succeeded", "dead_letter", "expired", "rejected", "missing"]
_USAGE = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_encoder = msgspec.json.Encoder()


@dataclass
class Sums:
    """What a manifest counts.

    Attributes:
        usage: tokens of the results; those of lines that failed are in their dead letters.
        cost_usd: of the results whose model has a price.
        without_price: results of models without one.
    """

    counts: dict[Status, int] = field(
        default_factory=lambda: {"succeeded": 0, "dead_letter": 0, "expired": 0, "rejected": 0, "missing": 0}
    )
    usage: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_USAGE, 0))
    cost_usd: float = 0.0
    without_price: int = 0

    @property
    def lines(self) -> int:
        """Lines in all."""
        return sum(self.counts.values())

    def add_result(self, result: InferenceResult) -> None:
        """Count a result."""
        for name in _USAGE:
            self.usage[name] += getattr(result.usage, name)
        if result.cost_usd is None:
            self.without_price += 1
        else:
            self.cost_usd += result.cost_usd


class Written:
    """One file being written, and its digest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def line(self, document: dict[str, Any]) -> None:
        """Write one object and a line end."""
        raw = _encoder.encode(document) + b"\n"
        self._file.write(raw)
        self._digest.update(raw)
        self.size_bytes += len(raw)

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest says about the file."""
        return {"sha256": self._digest.hexdigest(), "size_bytes": self.size_bytes}


def join(job: BatchJob, lines: Lines, outcomes: Outcomes, folder: Path, uris: dict[str, str]) -> dict[str, Any]:
    """Write output, errors and manifest into a folder, under the names of OUTPUTS; return the manifest.

    Args:
        job: whose.
        lines: of its input.
        outcomes: all that are known; a line without one is `missing`.
        folder: that exists.
        uris: where the files will be read, by kind, for the manifest.
    """
    sums = Sums()
    with (folder / OUTPUTS["output"]).open("wb") as out, (folder / OUTPUTS["errors"]).open("wb") as err:
        output, errors = Written(out), Written(err)
        for line, outcome in _paired(lines, iter(outcomes)):
            status, joined = _joined(line, outcome, sums)
            sums.counts[status] += 1
            output.line(joined)
            if status != "succeeded":
                errors.line(joined | {"input": _input(line)})
    manifest = _manifest(job, sums, outcomes.repeated) | {
        "output": {"uri": uris["output"], **output.facts},
        "errors": {"uri": uris["errors"], **errors.facts},
    }
    (folder / OUTPUTS["manifest"]).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _paired(lines: Lines, outcomes: Iterator[Outcome]) -> Iterator[tuple[Line, Outcome | None]]:
    """Walk along both in the order of the lines."""
    outcome = next(outcomes, None)
    for line in lines:
        while outcome is not None and outcome.line < line.number:
            outcome = next(outcomes, None)
        is_its = outcome is not None and outcome.line == line.number
        yield line, outcome if is_its else None


def _joined(line: Line, outcome: Outcome | None, sums: Sums) -> tuple[Status, dict[str, Any]]:
    head: dict[str, Any] = {"recordId": line.record_id, "line": line.number}
    if line.fault:
        return "rejected", _failed(head, "rejected", line.fault, line.message, 0)
    if outcome is None:
        return "missing", _failed(head, "missing", "no_outcome", "no outcome is on the result topic", 0)
    try:
        if outcome.is_result:
            result = decode_json(outcome.body, InferenceResult)
            sums.add_result(result)
            return "succeeded", head | _succeeded(result)
        marker = decode_json(outcome.body, OutcomeMarker)
    except Undecodable as error:
        return "missing", _failed(head, "missing", "undecodable_outcome", str(error), 0)
    return marker.status, _failed(head, marker.status, marker.reason, marker.message, marker.attempts)


def _succeeded(result: InferenceResult) -> dict[str, Any]:
    return {
        "status": "succeeded",
        "output": result.output,
        "model": result.provenance.model,
        "route": result.provenance.route,
        "finish_reason": result.finish_reason,
        "usage": {name: getattr(result.usage, name) for name in _USAGE},
        "cost_usd": result.cost_usd,
        "attempts": result.attempts,
        "completed_at": result.completed_at,
    }


def _failed(head: dict[str, Any], status: Status, reason: str, message: str, attempts: int) -> dict[str, Any]:
    return head | {"status": status, "error": {"reason": reason, "message": message, "attempts": attempts}}


def _input(line: Line) -> Any:
    """Return what the line said: as JSON where it is JSON, so that the error file can be mended and sent again."""
    return line.raw.decode(errors="replace") if line.fault else msgspec.Raw(line.raw)


def _manifest(job: BatchJob, sums: Sums, repeated: int) -> dict[str, Any]:
    return {
        "version": 1,
        "job": job.id,
        "is_complete": sums.counts["missing"] == 0,
        "input": {
            "uri": job.object.uri,
            "sha256": job.sha256,
            "size_bytes": job.object.size_bytes,
            "etag": job.object.etag,
            "version_id": job.object.version_id,
        },
        "source": job.source,
        "type": job.type,
        "lines": sums.lines,
        "counts": sums.counts,
        "repeated_outcomes": repeated,
        "usage": sums.usage,
        "cost_usd": round(sums.cost_usd, 6),
        "results_without_price": sums.without_price,
        "started_at": job.started_at,
        "submitted_at": job.submitted_at,
        "ended_at": job.ended_at,
    }
