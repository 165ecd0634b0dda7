"""A library that was upgraded while a job was unfinished: the job goes on where its numbers stay what they were.

JAX computes the scores, Pillow decodes and resizes the pictures, PyAV decodes videos; another version may do so
otherwise. So some of the finished rows, spread over the parts, are computed again with what is installed now. Each new
score may differ from its row by the two stated errors together (`score_error`), which is what two right computations
of one picture may differ by; then the manifest records the upgrade, the sample and the largest difference. Another
version of this package is refused, as ever: it may mean something else by a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jepa_jax.encoders import Encoder
from jepa_jax.errors import JobError
from jepa_jax.images.decoding import decode_record
from jepa_jax.images.sources import Records
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.output.parts import PartWriter
from jepa_jax.jobs.rows.exact import ExactStep
from jepa_jax.jobs.rows.step import get_ready
from jepa_jax.jobs.rows.stream import DeviceClock, score_stream
from jepa_jax.numerics.precision import Precision

LIBRARIES = {"jax": "jax", "pillow": "Pillow", "av": "PyAV"}
"""JobRecords versions that may change, and how messages call the library."""

SAMPLE = 16
"""Finished rows that are computed again."""


def upgrades(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[str]]:
    """Libraries whose version differs between two manifests: [then, now]."""
    then, now = old["pinned"], new["pinned"]
    both = [name for name in LIBRARIES if name in then and name in now]
    return {name: [then[name], now[name]] for name in both if then[name] != now[name]}


def require_same_scores(
    encoder: Encoder,
    source: Records,
    writer: PartWriter,
    options: JobOptions,
    noise: dict[Precision, float] | None,
    changed: Mapping[str, list[str]],
) -> dict[str, Any]:
    """Compute some finished rows again; what the manifest records of the upgrade.

    Raises:
        JobError: a score is another one than its row says.
    """
    rows = _sample(writer)
    index_of = {key: index for index, key in enumerate(source.keys)}
    found = {index_of[key]: row for key, row in rows.items() if key in index_of}
    largest = 0.0
    if found:
        step = ExactStep(encoder, options, options.batch_size, noise=noise)
        get_ready(step)
        records = (
            decode_record(i, source.keys[i], source.locators[i], source.reader, step.recipe) for i in sorted(found)
        )
        for outcome in score_stream(records, step, (), DeviceClock()):
            if outcome.row is None:
                continue  # gone, or changed: the job itself says so
            (score, error), row = found[outcome.record.index], outcome.row
            difference = abs(float(row["score"]) - score)
            if difference > error + float(row["score_error"]):
                versions = ", ".join(f"{LIBRARIES[name]} {then} -> {now}" for name, (then, now) in changed.items())
                raise JobError(
                    f"output {writer.directory} was begun with other libraries ({versions}), and with these the score "
                    f"of {source.keys[outcome.record.index]!r} is {difference:.3g} nats off, which is more than the "
                    "stated errors of both explain. Install the earlier versions, or name a new output directory."
                )
            largest = max(largest, difference)
    return {"versions": dict(changed), "rows_compared": len(found), "largest_difference_nats": largest}


def _sample(writer: PartWriter) -> dict[str, tuple[float, float]]:
    """Score and error of some finished rows, by key, spread over the parts."""
    parts = sorted(writer.written() - set(writer.foreign))
    spread = [parts[i * len(parts) // SAMPLE] for i in range(SAMPLE)] if len(parts) > SAMPLE else parts
    found: dict[str, tuple[float, float]] = {}
    for part in spread:
        table, _ = writer.read(part, ["key", "score", "score_error"])
        for row in table.slice(0, max(1, SAMPLE // max(1, len(spread)))).to_pylist():
            found[row["key"]] = (row["score"], row["score_error"])
    return found
