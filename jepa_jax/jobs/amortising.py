"""A job most of whose scores are predicted from one forward pass: a sample and a tail are exact.

Four stages, each a job of its own in a folder of the output directory, so that each is resumed and shared out among
processes as any job is:

    DIR/_sample      exact scores of a random sample
    DIR/predictor    fitted on them, once; whoever comes first
    DIR/_predicted   all images' predictions
    DIR/_escalated   exact scores of those predicted in the tail
    DIR/scores       the table: predictions, with exact scores in their place where there are any

A part of the table is a part of ``_predicted`` with some rows replaced. What the stages leave stays: ``_predicted``
still says what was predicted where the table has an exact score.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from jepa_jax.amortised import Amortised, fit_amortised, stored
from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.images.sources import Records
from jepa_jax.jobs.options import Amortise, JobOptions
from jepa_jax.jobs.output.manifest import read_manifest
from jepa_jax.jobs.output.ownership import Ownership, output_place
from jepa_jax.jobs.output.parts import job_parts
from jepa_jax.jobs.output.schema import EXACT
from jepa_jax.jobs.plan import Plan, make_plan
from jepa_jax.jobs.processes.team import Deal, Team
from jepa_jax.jobs.progress.protocol import Progress, Summary
from jepa_jax.jobs.rows.faults import Faults
from jepa_jax.jobs.rows.predicted import FeatureStep
from jepa_jax.jobs.rows.step import get_ready
from jepa_jax.jobs.rows.stream import DeviceClock, score_stream
from jepa_jax.jobs.runner import finish, run_job
from jepa_jax.jobs.stopping import StopSignals, pause
from jepa_jax.parquet import read_parquet
from jepa_jax.paths import AnyPath, PathLike

SAMPLE, PREDICTOR, PREDICTED, ESCALATED = "_sample", "predictor", "_predicted", "_escalated"
"""Folders of the stages, in the output directory."""

FROM_EXACT = ("score", "score_error", "precision", "log_volume_rank")
"""Columns that an exact score brings into the table."""


def run_amortised(
    encoder: Encoder,
    source: Records,
    output: PathLike,
    progress: Progress,
    options: JobOptions,
    team: Team | None = None,
) -> Summary:
    """Score every record of a source, most of them by one forward pass; resumed and shared out as `run_job` is.

    Args:
        encoder: scores the images.
        source: the records.
        output: directory of the table.
        progress: is told what happens in this process.
        options: how it is done; with ``amortise``.
        team: this process among the others; by default it is alone.

    Returns:
        The summary of the whole job, in every process.

    Raises:
        JobInterrupted: a signal stopped it.
        JobError: the directory belongs to another job, or the job cannot go on. What is whole is kept.
        ArgumentError: there are no more images than the sample takes.
    """
    ask, team, options = options.amortise, team or Team(), options.resolved
    if ask is None:
        raise ArgumentError("options.amortise=None: this job predicts; give how.")
    require_others(source, ask)
    directory = output_place(output)
    plan = make_plan(encoder, source, directory, options, write=True, team=team)
    stages = _Stages(encoder, plan.source, directory, progress, options, ask, team)
    if (read_manifest(directory) or {}).get("complete") and not plan.missing:
        progress.start(plan.records, plan.records)
        with StopSignals(progress.note) as signals, Deal(directory, [], team, plan.writer.written) as deal:
            return finish(plan, directory, options, team, deal, signals, stages.told_before())
    exact = {} if ask.predictor is not None else stages.sample()
    head = stages.predictor(exact)
    stages.predict(head)
    exact |= stages.escalate(head, exact)
    return _merge(plan, stages, exact, head)


def require_others(source: Records, ask: Amortise) -> None:
    """Raise ArgumentError where no record is left to predict."""
    if ask.predictor is None and len(source.keys) <= ask.exact_sample:
        raise ArgumentError(
            f"exact_sample={ask.exact_sample}: the input has {len(source.keys)} records, and none is left to predict. "
            "Give a smaller one, or compute exact scores."
        )


@dataclasses.dataclass(frozen=True)
class _Exact:
    """What a stage found of a record: its row, or why it has no score."""

    row: Mapping[str, Any] | None
    reason: str = ""


class _Stages:
    """The stages of one job, each begun when the one before is done."""

    def __init__(
        self,
        encoder: Encoder,
        source: Records,
        directory: AnyPath,
        progress: Progress,
        options: JobOptions,
        ask: Amortise,
        team: Team,
    ):
        self.encoder, self.source, self.directory, self.progress = encoder, source, directory, progress
        self.options, self.ask, self.team = options, ask, team

    def sample(self) -> dict[str, _Exact]:
        """Exact scores of the sample, by key."""
        self.progress.note(
            f"Stage 1 of 4: exact scores of {self.ask.exact_sample:,} {self.source.nouns} drawn at random."
        )
        sample = self.source.some(self.ask.exact_sample, self.ask.sample_seed)
        return self._exact(SAMPLE, sample)

    def predictor(self, exact: Mapping[str, _Exact]) -> Amortised:
        """The predictor of this job: the given one, or what the first process to come here fitted."""
        folder = self.directory / PREDICTOR
        if stored.stands(folder):
            head = Amortised.load(folder, self.encoder)
            if self.ask.predictor is not None and head.digest != self.ask.predictor.digest:
                raise JobError(f"{folder} holds another predictor than the one given; name a new output directory.")
            return head
        self.progress.note("Stage 2 of 4: fitting the predictor.")
        head = self._fit(exact) if self.ask.predictor is None else self.ask.predictor
        stored.write_first(head, folder)
        return Amortised.load(folder, self.encoder)

    def _fit(self, exact: Mapping[str, _Exact]) -> Amortised:
        scores = {key: found.row["score"] for key, found in exact.items() if found.row is not None}
        sample = self.source.only([key for key in exact if key in scores])
        step, workers = FeatureStep(self.encoder), self.options.workers
        found: list[np.ndarray] = []
        keys: list[str] = []
        with StopSignals(self.progress.note) as signals:
            self.progress.note(get_ready(step))
            faults = Faults(sample)
            decoded = decode_ahead(
                sample, range(len(sample.keys)), step.recipe, workers=workers, ahead=2 * step.records
            )
            for outcome in score_stream(decoded, step, (), DeviceClock(), lambda: signals.received is not None):
                faults.require_none(outcome.record)
                if outcome.row is not None:
                    keys.append(sample.keys[outcome.record.index])
                    found.append(outcome.row["features"])
            signals.raise_if_received()
        try:
            return fit_amortised(
                self.encoder,
                None,
                np.array([scores[key] for key in keys]),
                features=np.array(found),
                coverage=self.ask.coverage,
                seed=self.ask.sample_seed,
            )
        except ArgumentError as error:
            failed = len(exact) - len(keys)
            raise JobError(
                f"the sample has {failed} of {len(exact)} {self.source.nouns} without a score. {error}"
            ) from error

    def predict(self, head: Amortised) -> None:
        """Predictions of all records."""
        self.progress.note(
            f"Stage 3 of 4: one forward pass of {len(self.source.keys):,} {self.source.nouns}; predictor "
            f"{head.digest[:12]}, of {len(head.calibration.exact) + len(head.calibration.elsewhere):,} exact scores."
        )
        options = dataclasses.replace(self.options, amortise=None, predictor=head, batch_size=None, noise_images=0)
        run_job(self.encoder, self.source, self.directory / PREDICTED, self.progress, options, self.team)

    def predicted_parts(self) -> list[AnyPath]:
        """The parts of the predictions."""
        folder = self.directory / PREDICTED
        return job_parts(folder)

    def escalate(self, head: Amortised, exact: Mapping[str, _Exact]) -> dict[str, _Exact]:
        """Exact scores of those whose predictions call for it, by key."""
        if not self.ask.escalate:
            return {}
        parts = self.predicted_parts()
        predicted = [read_parquet(part, ["score"])["score"].to_numpy() for part in parts]
        if not sum(map(len, predicted)):  # no image could be used
            return {}
        chosen, told = escalated(head, np.concatenate(predicted), self.ask)
        keys, start = [], 0
        for part, values in zip(parts, predicted, strict=True):
            if (rows := np.flatnonzero(chosen[start : start + len(values)])).size:
                keys += read_parquet(part, ["key"])["key"].take(pa.array(rows)).to_pylist()
            start += len(values)
        keys = [key for key in keys if key not in exact]
        self.progress.note(f"Stage 4 of 4: exact scores of {len(keys):,} more {self.source.nouns}. {told}")
        return self._exact(ESCALATED, self.source.only(keys)) if keys else {}

    def _exact(self, name: str, source: Records) -> dict[str, _Exact]:
        score = dataclasses.replace(self.options.score, spectrum=False)
        options = dataclasses.replace(self.options, score=score, columns=(), amortise=None, shard_size=None)
        run_job(self.encoder, source, self.directory / name, self.progress, options, self.team)
        return read_exact(self.directory / name)

    def told_before(self) -> dict[str, Any]:
        """What the manifest of a finished job says of the whole."""
        return {"amortised": (read_manifest(self.directory) or {}).get("amortised")}


def read_exact(folder: AnyPath) -> dict[str, _Exact]:
    """What a stage of exact scores found, by key."""
    found: dict[str, _Exact] = {}
    for part in job_parts(folder):
        rows = read_parquet(part, ["key", *FROM_EXACT]).to_pylist()
        found.update((row["key"], _Exact(row)) for row in rows)
    failures = read_parquet(folder / "failures.parquet").to_pylist()
    return found | {row["key"]: _Exact(None, row["reason"]) for row in failures}


def escalated(head: Amortised, predicted: np.ndarray, ask: Amortise) -> tuple[np.ndarray, str]:
    """Which predictions [n] are scored exactly, bool [n], and in words what that finds of the exact tail.

    Equal predictions are taken together, so that the choice hangs on nothing else.
    """
    if not isinstance(ask.tail, str):
        between = float(ask.tail[0]), float(ask.tail[1])
        if ask.recall is None:
            low, high = np.quantile(predicted, between)
            return (predicted >= low) & (predicted <= high), f"They are predicted from {low:.4g} to {high:.4g} nats."
        rule = head.escalate(predicted, tail=between, recall=ask.recall)
    elif ask.recall is not None:
        rule = head.escalate(predicted, tail=ask.tail, share=ask.escalate, recall=ask.recall)
    else:
        sign, count = (1.0 if ask.tail == "lowest" else -1.0), max(1, round(ask.escalate * len(predicted)))
        values = sign * predicted
        edge = np.partition(values, count - 1)[count - 1]
        promised, expected = head.recall(ask.escalate, tail=ask.tail, share=ask.escalate / 2)
        return values <= edge, (
            f"They are expected to hold {expected:.1%} of the {ask.tail} {ask.escalate / 2:.2%} of all exact scores; "
            + (f"at least {promised:.1%}, at 95% confidence." if promised else "so small a sample can promise none.")
        )
    said = "promised" if rule.promised else f"expected; a promise takes {rule.calibration_needed:,} for calibration"
    return rule.rows(predicted), f"They hold {ask.recall:.1%} of the exact tail ({said})."


def _merge(plan: Plan, stages: _Stages, exact: Mapping[str, _Exact], head: Amortised) -> Summary:
    """Write the missing parts of the table, and close the job."""
    directory, team, writer = plan.writer.directory, stages.team, plan.writer
    stages.progress.note("Writing the table.")
    with (
        StopSignals(stages.progress.note) as signals,
        Deal(directory, plan.missing, team, writer.written, writer.is_written) as deal,
    ):
        claim = Ownership(directory, plan.manifest)
        predicted = {part.name: part for part in stages.predicted_parts()}
        while True:
            for part in deal.now():
                signals.raise_if_received()
                claim.require()
                path = predicted[writer.name(part)]
                try:
                    failed = read_parquet(directory / PREDICTED / "_failures" / path.name)
                except FileNotFoundError:
                    failed = None
                writer.put(part, *merged(read_parquet(path), failed, exact))
            if not deal.anything_left():
                break
            claim.watch()
            pause(signals)
        return finish(plan, directory, stages.options, team, deal, signals, {"amortised": _told(exact, head)})


def merged(predicted: pa.Table, failed: pa.Table | None, exact: Mapping[str, _Exact]) -> tuple[pa.Table, pa.Table]:
    """Rows and failures of a part, with exact scores in the place of predictions."""
    keys = predicted["key"].to_pylist()
    here = {row: exact[key] for row, key in enumerate(keys) if key in exact}
    failures = [] if failed is None else failed.to_pylist()
    if here:
        bytes_of = predicted["bytes"].to_pylist()
        without = [row for row, found in here.items() if found.row is None]
        failures += [{"key": keys[row], "reason": here[row].reason, "bytes": bytes_of[row]} for row in without]
        predicted = _replaced(predicted, {row: found.row for row, found in here.items() if found.row is not None})
        predicted = predicted.take(pa.array([row for row in range(len(keys)) if row not in set(without)], pa.int64()))
    columns = {name: [failure[name] for failure in failures] for name in ("key", "reason", "bytes")}
    return predicted, pa.table(
        {
            "key": pa.array(columns["key"], pa.string()),
            "reason": pa.array(columns["reason"], pa.string()),
            "bytes": pa.array(columns["bytes"], pa.int64()),
        }
    )


def _replaced(table: pa.Table, rows: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    """A table with the exact scores of some rows."""
    columns = {name: table[name].to_pylist() for name in (*FROM_EXACT, "score_low", "score_high", "method")}
    for index, row in rows.items():
        score, error = row["score"], row["score_error"]
        found = {"score_low": score - error, "score_high": score + error, "method": EXACT}
        for name, value in (found | {name: row[name] for name in FROM_EXACT}).items():
            columns[name][index] = value
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    return table


def _told(exact: Mapping[str, _Exact], head: Amortised) -> dict[str, Any]:
    return {
        "exact": sum(found.row is not None for found in exact.values()),
        "predictor": head.digest,
        "coverage": head.settings.coverage,
        "fitted_on": len(head.calibration.elsewhere),
        "calibrated_on": len(head.calibration.exact),
    }
