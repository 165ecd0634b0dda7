"""`jepa-jax evaluate`: how well scores, spectra and classic detectors tell one set from others, measured honestly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from jepa_jax.analysis import baselines, complexity
from jepa_jax.analysis.complexity import ComplexityControl
from jepa_jax.analysis.dual import DUAL_TESTS, DualTest, fit_dual
from jepa_jax.analysis.metrics import Separation, separations
from jepa_jax.analysis.reference import ReferenceSplit, hold_out
from jepa_jax.analysis.statistics import SPECTRAL_STATISTICS
from jepa_jax.errors import ArgumentError
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.table import ScoreTable, drawn_rows

SIGN = (
    "positive class = the in-set; higher = more typical; AUROC under 0.5 = the sign is inverted: the out-set looks "
    "more typical than the in-set"
)


Fitted = baselines.Detector | DualTest
"""What is fitted on a reference, and scores tables that share no image with it."""

ALARM_RATE = 0.05
"""Of the alarms that are counted where a statistic has p-values: the share of false ones that they promise."""


@dataclass(frozen=True)
class Options:
    """What is evaluated, and how.

    Attributes:
        reference_share: share of the in-set that detectors are fitted on, where no reference set is given; 0 for none.
        most_reference: images that detectors are fitted on at most, drawn at random: their cost grows with the square.
        drop_overlap: whether images that are reference images as well are left out, instead of refused.
        complexity_images: images per set that complexity is measured on; 0 for none.
        resamples: of the bootstrap.
        seed: of the split and the bootstrap.
    """

    reference_share: float = 0.5
    most_reference: int = 20_000
    drop_overlap: bool = False
    complexity_images: int = 2000
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Alarms:
    """How many images of a set have a p-value up to `ALARM_RATE`.

    Attributes:
        rate: `ALARM_RATE`.
        share_in: of the judged in-set: false alarms.
        share_out: of the out-set.
    """

    rate: float
    share_in: float
    share_out: float


@dataclass(frozen=True)
class DetectorResult:
    """One statistic against one out-set.

    Attributes:
        out: name of the out-set.
        statistic: such as ``score`` or ``knn``.
        fitted: whether it is fitted on the reference.
        result: over all judged images: the whole in-set where nothing is fitted or the reference is another set,
            else the in-set without its reference share.
        on_split: over the in-set without its reference share, so that all statistics compare on the same images;
            None where that is ``result`` itself.
        alarms: of the statistics that have p-values.
    """

    out: str
    statistic: str
    fitted: bool
    result: Separation
    on_split: Separation | None
    alarms: Alarms | None = None


@dataclass(frozen=True)
class Evaluation:
    """All rows, the complexity control of each out-set, and what was left out and why."""

    in_set: str
    encoder: str
    reference: str
    rows: tuple[DetectorResult, ...]
    controls: dict[str, ComplexityControl]
    notes: tuple[str, ...] = field(default=())

    def find(self, out: str, statistic: str) -> DetectorResult:
        """The row of one statistic against one out-set."""
        return next(row for row in self.rows if (row.out, row.statistic) == (out, statistic))


def evaluate(
    in_set: ScoreTable,
    out_sets: Sequence[ScoreTable],
    *,
    reference: ScoreTable | None = None,
    options: Options | None = None,
    readers: Mapping[str, ImageReader] | None = None,
) -> Evaluation:
    """Judge every statistic that the tables allow.

    Args:
        in_set: images of the distribution in question.
        out_sets: images from elsewhere, scored by the same encoder.
        reference: images of the in-set's distribution to fit detectors on; by default a share of the in-set, which is
            then not judged by them.
        options: see `Options`.
        readers: of the sets' images, by the set's name; by default where the jobs found them.

    Raises:
        ArgumentError: the tables come from different encoders, share names, or share images with the reference.
    """
    options = options or Options()
    _require_comparable(in_set, out_sets, reference)
    notes: list[str] = []
    for table in (in_set, *out_sets, *([reference] if reference else [])):
        notes += _about_predictions(table)
    in_set, *out_sets = (_without_gaps(table, notes) for table in (in_set, *out_sets))
    split, judged = _reference(in_set, reference, options, notes)
    if split is not None and options.drop_overlap:
        if reference is not None:
            judged = in_set = _without_overlap(split, in_set, notes)
        out_sets = [_without_overlap(split, table, notes) for table in out_sets]
    detectors = [] if split is None else _fit_all(split, notes)
    rows = []
    for out in out_sets:
        rows += _rows(in_set, judged, out, _able(detectors, judged, out, notes), options)
    return Evaluation(
        in_set.name,
        in_set.encoder,
        "none" if split is None else f"{len(split):,} images of {split.table.name}, held out",
        tuple(rows),
        {} if split is None else _controls(split.table, judged, out_sets, options, readers or {}, notes),
        tuple(dict.fromkeys(notes)),
    )


def _reference(
    in_set: ScoreTable, reference: ScoreTable | None, options: Options, notes: list[str]
) -> tuple[ReferenceSplit | None, ScoreTable]:
    """The reference split, and the part of the in-set that may be judged by what is fitted on it."""
    if reference is not None:
        return ReferenceSplit.of(_sample(reference, options.most_reference, options.seed)), in_set
    if options.reference_share:
        split, rest = hold_out(in_set, options.reference_share, options.seed)
        return ReferenceSplit.of(_sample(split.table, options.most_reference, options.seed)), rest
    notes.append("No reference: fitted detectors and the complexity control are left out.")
    return None, in_set


def _fit_all(split: ReferenceSplit, notes: list[str]) -> list[Fitted]:
    detectors: list[Fitted] = []
    for name in (*baselines.DETECTORS, *DUAL_TESTS):
        try:
            detectors.append(fit_dual(split, name) if name in DUAL_TESTS else baselines.fit(name, split))
        except ArgumentError as error:
            notes.append(f"{name} is left out: {error}")
    return detectors


def _able(detectors: Sequence[Fitted], judged: ScoreTable, out: ScoreTable, notes: list[str]) -> list[Fitted]:
    """The detectors that can judge both sets: what one was not scored with costs it these, and no other figure."""
    able = []
    for detector in detectors:
        try:
            for table in (judged, out):
                detector.require(table)
        except ArgumentError as error:
            notes.append(f"{detector.name} is left out for {out.name}: {error}")
        else:
            able.append(detector)
    return able


def _alarms(detector: Fitted, judged: ScoreTable, out: ScoreTable, seed: int) -> Alarms | None:
    if not isinstance(detector, DualTest):
        return None
    shares = (np.mean(detector.p_values(table, seed=seed) <= ALARM_RATE) for table in (judged, out))
    return Alarms(ALARM_RATE, *map(float, shares))


def _rows(
    in_set: ScoreTable,
    judged: ScoreTable,
    out: ScoreTable,
    detectors: Sequence[Fitted],
    options: Options,
) -> list[DetectorResult]:
    whole, other = statistics_of(in_set), statistics_of(out)
    names = [name for name in whole if name in other]
    part = statistics_of(judged) | {detector.name: detector.score(judged) for detector in detectors}
    other |= {detector.name: detector.score(out) for detector in detectors}
    on_split = _judge(part, other, [*names, *(detector.name for detector in detectors)], options)
    on_whole = on_split if judged is in_set else _judge(whole, other, names, options)
    free = [DetectorResult(out.name, n, False, on_whole[n], None if judged is in_set else on_split[n]) for n in names]
    return free + [
        DetectorResult(out.name, d.name, True, on_split[d.name], None, _alarms(d, judged, out, options.seed))
        for d in detectors
    ]


def statistics_of(table: ScoreTable) -> dict[str, np.ndarray]:
    """Every statistic of a table that needs no fit: its scores, and what its spectra give."""
    spectrum = table.structural_spectrum
    spectral = {} if spectrum is None else {name: f(spectrum) for name, f in SPECTRAL_STATISTICS.items()}
    return table.scores | spectral


def _judge(
    values_in: dict[str, np.ndarray], values_out: dict[str, np.ndarray], names: Sequence[str], options: Options
) -> dict[str, Separation]:
    return separations(
        {name: values_in[name] for name in names},
        {name: values_out[name] for name in names},
        resamples=options.resamples,
        seed=options.seed,
    )


def _controls(
    reference: ScoreTable,
    judged: ScoreTable,
    out_sets: Sequence[ScoreTable],
    options: Options,
    readers: Mapping[str, ImageReader],
    notes: list[str],
) -> dict[str, ComplexityControl]:
    if not options.complexity_images:
        notes.append("The complexity control was not asked for.")
        return {}
    measured: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def known(table: ScoreTable, role: str) -> tuple[np.ndarray, np.ndarray] | None:
        if role not in measured:
            reader = readers.get(table.name) or ImageReader.of(table)
            if reader is None:
                notes.append(f"No complexity control with {table.name}: its images are not known or not there.")
                return None
            if reader.recipe.frames is not None:
                notes.append(f"No complexity control with {table.name}: it holds clips.")
                return None
            some = _sample(table, options.complexity_images, options.seed)
            measured[role] = some.scores["score"], complexity.measure(reader, list(some.keys))
        return measured[role]

    controls = {}
    inside = known(reference, "reference"), known(judged, "in")
    for i, out in enumerate(out_sets):
        sets = (*inside, known(out, f"out{i}"))
        if any(part is None for part in sets):
            continue
        scores, sizes = zip(*(part for part in sets if part is not None), strict=True)
        try:
            controls[out.name] = complexity.control(scores, sizes)
        except ArgumentError as error:
            notes.append(f"No complexity control with {out.name}: {error}")
    return controls


def _sample(table: ScoreTable, count: int, seed: int) -> ScoreTable:
    return table.take(drawn_rows(len(table), count, seed))


def _about_predictions(table: ScoreTable) -> list[str]:
    """What is judged of a table where not all of its scores are exact."""
    predicted = int(table.predicted.sum())
    if not predicted:
        return []
    exact = len(table) - predicted
    unfamiliar = 0 if table.unfamiliar is None else int((table.unfamiliar & table.predicted).sum())
    said = f", {unfamiliar:,} of them of unfamiliar images" if unfamiliar else ""
    return [
        f"{table.name}: {exact:,} of {len(table):,} scores are exact, {predicted:,} predicted from one forward pass"
        f"{said}; score is judged as the table has it."
    ]


def _without_gaps(table: ScoreTable, notes: list[str]) -> ScoreTable:
    """A table without the scores of layers that some of its images lack: all statistics are of the same images."""
    gaps = {name: int(np.isnan(values).sum()) for name, values in table.scores.items() if np.isnan(values).any()}
    for name, count in gaps.items():
        notes.append(f"{name} is left out: {count:,} of {len(table):,} images of {table.name} have none.")
    return replace(table, scores={name: values for name, values in table.scores.items() if name not in gaps})


def _without_overlap(split: ReferenceSplit, table: ScoreTable, notes: list[str]) -> ScoreTable:
    shared = split.overlap(table)
    if not shared.any():
        return table
    notes.append(f"{int(shared.sum())} images of {table.name} are left out: they are reference images as well.")
    return table.take(~shared)


def _require_comparable(in_set: ScoreTable, out_sets: Sequence[ScoreTable], reference: ScoreTable | None) -> None:
    if not out_sets:
        raise ArgumentError("out has no set; name at least one.")
    names = [table.name for table in (in_set, *out_sets)]
    if len(set(names)) < len(names):
        raise ArgumentError(f"the sets are named {', '.join(names)}; names must differ (NAME=PATH gives one).")
    for other in (*out_sets, *([reference] if reference else [])):
        if other.encoder_id != in_set.encoder_id:
            raise ArgumentError(
                f"{other.name!r} was scored by {other.encoder} ({other.encoder_id}) and {in_set.name!r} by "
                f"{in_set.encoder} ({in_set.encoder_id}); scores compare within one encoder, image size, precision "
                "and number of views."
            )
        a, b = in_set.singular_values, other.singular_values
        if a is not None and b is not None and a.shape[1] != b.shape[1]:
            raise ArgumentError(
                f"{other.name!r} has {b.shape[1]} singular values per image and {in_set.name!r} {a.shape[1]}; "
                "they come from different encoders."
            )
