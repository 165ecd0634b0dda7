"""Evaluation against scikit-learn's definitions, the held-out rule, and the command on real jobs."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn import metrics as sk

import jepa_jax as jj
from jepa_jax.analysis import baselines
from jepa_jax.analysis.complexity import bits_per_pixel, control
from jepa_jax.analysis.evaluation import Options, evaluate
from jepa_jax.analysis.metrics import bootstrap, separations
from jepa_jax.analysis.reference import SAME, ReferenceSplit, hold_out, near
from jepa_jax.analysis.showing import print_evaluation
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.reading import read_table
from jepa_jax.scored.table import ScoreTable

FAST = Options(resamples=50)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line; wide enough that no message is wrapped."""
    command = [sys.executable, "-m", "jepa_jax", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)


def drawn_table(name: str, count: int, shift: float, seed: int, dimensions: int = 12) -> ScoreTable:
    """A table of random embeddings and spectra, with two values at rounding noise as DINOv2 has."""
    rng = np.random.default_rng(seed)
    spectra = np.exp(rng.normal(shift, 1, (count, dimensions)))
    spectra[:, -2:] = 1e-7 * rng.uniform(0.5, 2, (count, 2))
    spectra = -np.sort(-spectra, axis=1).astype(np.float32)
    return ScoreTable(
        name=name,
        origin=f"/images/{name}",
        keys=np.array([f"{i}.png" for i in range(count)], object),
        scores={"score": np.log(spectra[:, :-2].astype(np.float64)).sum(axis=1)},
        null_directions=2,
        singular_values=spectra,
        embedding=rng.normal(shift, 1, (count, 6)).astype(np.float32),
    )


def reference_aurocs(spectra_in: np.ndarray, spectra_out: np.ndarray) -> dict[str, float]:
    """The definition, in NumPy and scikit-learn alone: nulls in (the paper's listing) and out."""
    labels = np.r_[np.ones(len(spectra_in)), np.zeros(len(spectra_out))]
    values = np.concatenate([spectra_in, spectra_out]).astype(np.float64)
    return {
        "listing_score": float(sk.roc_auc_score(labels, np.log(np.maximum(values, 1e-6)).sum(axis=1))),
        "score": float(sk.roc_auc_score(labels, np.log(np.maximum(values[:, :-2], 1e-6)).sum(axis=1))),
    }


def require_defined_aurocs(path_in: Path, path_out: Path, array_in: np.ndarray, array_out: np.ndarray):
    tables = [read_table(path, null_directions=2) for path in (path_in, path_out)]
    result = evaluate(tables[0], [tables[1]], options=FAST)
    for statistic, expected in reference_aurocs(array_in, array_out).items():
        assert abs(result.find(tables[1].name, statistic).result.auroc.value - expected) < 1e-9
    return result


@pytest.mark.parametrize("suffix", ["npy", "npz", "parquet"])
def test_spectra_files_give_the_defined_auroc(suffix: str, tmp_path: Path):
    import pyarrow as pa

    arrays = [drawn_table(str(i), 40, 0.3 * i, seed=i).singular_values for i in (1, 0)]
    paths = [tmp_path / f"{name}.{suffix}" for name in ("inside", "outside")]
    for path, array in zip(paths, arrays, strict=True):
        assert array is not None
        if suffix == "npy":
            np.save(path, array)
        elif suffix == "npz":
            np.savez(path, singular_values=array)
        else:
            column = pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])
            pq.write_table(pa.table({"singular_values": column}), path)
    assert arrays[0] is not None
    assert arrays[1] is not None
    require_defined_aurocs(paths[0], paths[1], arrays[0], arrays[1])


@pytest.mark.parametrize("model", ["vits14", "vitb14"])
def test_published_spectra_give_the_defined_auroc_and_the_tail_gains(spectra: Path, model: str):
    paths = [spectra / f"dinov2_{model}_{name}.npz" for name in ("cifar10", "svhn")]
    arrays = [np.load(path)["singular_values"] for path in paths]
    result = require_defined_aurocs(paths[0], paths[1], arrays[0], arrays[1])
    gain = result.find(f"dinov2_{model}_svhn", "tail_score").result.gain
    assert gain is not None
    assert gain.low > 0


def test_every_metric_is_scikit_learns_and_so_is_its_bootstrap():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 9, 50) + 2.0, rng.integers(0, 9, 70) + 0.0  # many ties
    labels, values = np.r_[np.ones(50), np.zeros(70)], np.r_[inside, outside]
    result = separations({"score": inside}, {"score": outside}, resamples=20)["score"]
    assert result.auroc.value == sk.roc_auc_score(labels, values)
    assert result.aupr_in.value == sk.average_precision_score(labels, values)
    assert result.aupr_out.value == sk.average_precision_score(1 - labels, -values)
    passing = [np.mean(outside >= t) for t in values if np.mean(inside >= t) >= 0.95]
    assert result.fpr95.value == pytest.approx(min(passing), abs=1e-15)
    rng = np.random.default_rng(3)  # the first resample, as `bootstrap` draws it
    weights = np.r_[
        np.bincount(rng.integers(50, size=50), minlength=50), np.bincount(rng.integers(70, size=70), minlength=70)
    ]
    expected = [
        sk.roc_auc_score(labels, values, sample_weight=weights),
        sk.average_precision_score(labels, values, sample_weight=weights),
        sk.average_precision_score(1 - labels, -values, sample_weight=weights),
    ]
    np.testing.assert_allclose(bootstrap(inside, outside, 1, seed=3)[0, :3], expected, rtol=1e-12)


def test_a_bootstrap_interval_covers_the_true_auroc_about_as_often_as_it_says():
    # Normal sets one apart: AUROC = Phi(1 / sqrt 2) = 0.7602. 95% of 200 trials are 190; 4 standard deviations: 12.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        result = separations({"score": rng.normal(1, 1, 80)}, {"score": rng.normal(0, 1, 80)}, resamples=200)["score"]
        hits += result.auroc.low <= 0.76025 <= result.auroc.high
    assert 178 <= hits <= 200


def test_an_inverted_statistic_is_called_out():
    low, high = drawn_table("low", 60, 0, seed=0), drawn_table("high", 60, 1, seed=1)
    assert evaluate(low, [high], options=FAST).find("high", "score").result.inverted
    assert not evaluate(high, [low], options=FAST).find("low", "score").result.inverted


def test_fitting_on_scored_keys_is_refused():
    table = drawn_table("set", 40, 0, seed=0)
    detector = baselines.fit("knn", ReferenceSplit.of(table))
    with pytest.raises(jj.ArgumentError, match="40 of 40 images of 'set' are reference images"):
        detector.score(table)
    with pytest.raises(jj.ArgumentError, match="reference images"):
        evaluate(table, [drawn_table("out", 20, 1, seed=1)], reference=table.take(np.arange(5, 20)), options=FAST)


def test_the_same_image_is_found_by_key_or_by_content():
    table = drawn_table("set", 40, 0, seed=0)
    split = ReferenceSplit.of(table.take(np.arange(20)))
    other = drawn_table("other", 40, 0, seed=1)
    assert not split.overlap(other).any()  # keys of another origin are other images
    renamed = ScoreTable("copy", "/elsewhere", np.array(["x"], object), {}, 2, None, table.embedding[3:4])  # pyright: ignore[reportOptionalSubscript]
    assert split.overlap(renamed).all()
    judged = drawn_table("set", 40, 0, seed=5)  # the same keys by another encoder
    assert split.overlap(judged).sum() == 20


def test_the_same_image_is_found_in_the_rounding_of_another_batch():
    table = drawn_table("set", 200, 0, seed=0)
    assert table.embedding is not None
    rng = np.random.default_rng(0)
    units = rng.uniform(-8, 8, table.embedding.shape) * np.finfo(np.float32).eps
    rounded = (table.embedding * (1 + units)).astype(np.float32)
    elsewhere = ScoreTable("copy", "/elsewhere", table.keys, table.scores, 2, None, rounded)
    split = ReferenceSplit.of(table.take(np.arange(0, 200, 2)))
    assert split.overlap(elsewhere).tolist() == [True, False] * 100
    # The window along one direction finds what comparing all pairs finds.
    others = np.concatenate([rounded[::3], rng.standard_normal((50, rounded.shape[1])).astype(np.float32)])
    distances = np.linalg.norm(table.embedding[:, None] - others[None], axis=-1)
    every = (distances <= SAME * np.linalg.norm(table.embedding, axis=1)[:, None]).any(axis=1)
    assert near(table.embedding, others).tolist() == every.tolist()
    both = ScoreTable("both", "/both", np.arange(400).astype(object), {}, 2, None, np.r_[table.embedding, rounded])
    split, rest = hold_out(both, 0.4)
    assert not split.overlap(rest).any()


def test_the_split_is_the_same_in_another_rounding_and_order():
    table = drawn_table("set", 200, 0, seed=0)
    assert table.embedding is not None
    rounded = dataclasses.replace(table, embedding=np.nextafter(table.embedding, np.float32(np.inf)))
    split, rest = hold_out(table, 0.4)
    assert len(split) == 80
    for other in (rounded, table.take(np.random.default_rng(0).permutation(200))):
        again, others = hold_out(other, 0.4)
        assert again.identities == split.identities
        assert set(others.keys) == set(rest.keys)
    assert hold_out(table, 0.4, seed=1)[0].identities != split.identities


def test_the_same_image_is_found_in_tables_of_float16():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((300, 64))
    manifest = {"pinned": {"save_dtype": "float16"}}

    def stored(name: str, rows: np.ndarray) -> ScoreTable:
        noisy = (rows * (1 + 1e-6 * rng.standard_normal(rows.shape))).astype(np.float16).astype(np.float32)
        return ScoreTable(name, f"/{name}", np.arange(len(rows)).astype(object), {}, 2, None, noisy, manifest=manifest)

    assert (
        ReferenceSplit.of(stored("one", exact[:200])).overlap(stored("other", exact)).tolist()
        == [True] * 200 + [False] * 100
    )
    copies = stored("copies", np.r_[exact, exact])
    split, rest = hold_out(copies, 0.3)
    assert not split.overlap(rest).any()
    assert not set(split.table.keys % 300) & set(rest.keys % 300)


def test_a_held_out_share_never_meets_the_rest_even_with_copies():
    table = drawn_table("set", 50, 0, seed=0)
    doubled = table.take(np.r_[np.arange(50), np.arange(25)])
    split, rest = hold_out(doubled, 0.4)
    assert len(split) + len(rest) == 75
    assert not split.overlap(rest).any()
    assert hold_out(doubled, 0.4)[0].identities == split.identities


def test_detectors_are_what_they_are_called():
    reference, judged = drawn_table("in", 60, 0, seed=0), drawn_table("out", 30, 1, seed=1)
    split = ReferenceSplit.of(reference)
    assert reference.embedding is not None
    assert judged.embedding is not None
    a, b = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (reference.embedding, judged.embedding))
    distance = np.sort(np.linalg.norm(b[:, None] - a[None], axis=-1), axis=1)[:, 9]
    np.testing.assert_allclose(baselines.fit("knn", split).score(judged), -distance, rtol=1e-5)
    from sklearn.covariance import ledoit_wolf

    x = reference.embedding.astype(np.float64)
    apart = judged.embedding.astype(np.float64) - x.mean(axis=0)
    expected = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(ledoit_wolf(x)[0]), apart)
    np.testing.assert_allclose(baselines.fit("mahalanobis", split).score(judged), -expected, rtol=1e-6)
    for name in baselines.DETECTORS:
        assert np.all(np.isfinite(baselines.fit(name, split).score(judged)))


def test_complexity_that_explains_everything_leaves_nothing():
    rng = np.random.default_rng(0)
    bits = [rng.normal(mean, 1, 300) for mean in (2, 2, 4)]
    noise = [rng.normal(0, 0.1, 300) for _ in bits]
    scores = [5 - 3 * b + n for b, n in zip(bits, noise, strict=True)]
    found = control((scores[0], scores[1], scores[2]), (bits[0], bits[1], bits[2]))
    assert found.slope == pytest.approx(-3, abs=0.05)
    assert found.spearman_in < -0.95
    assert found.auroc_complexity > 0.85
    # No separation is left: 0.5 within four standard errors of an AUROC over 300 + 300 images (0.024).
    assert abs(found.auroc_residual - 0.5) < 0.096
    assert 0.2 < found.covered_out < 0.95


def test_the_command_writes_json_parquet_and_markdown(scored_sets: dict[str, Path], tmp_path: Path):
    done = run(
        *("evaluate", "--in", scored_sets["smooth"], "--out", scored_sets["rough"], "--output", tmp_path / "out"),
        *("--resamples", "50"),
    )
    assert done.returncode == 0, done.stderr
    assert "positive class = the in-set" in done.stdout
    data = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    names = {row["statistic"] for row in data["rows"]}
    free = {"score", "listing_score", "tail_score", "effective_rank", "frobenius_norm"}
    assert free | {*baselines.DETECTORS, "dual", "dual_one_sided"} == names
    table = pq.read_table(tmp_path / "out" / "evaluation.parquet").to_pylist()
    assert {row["statistic"]: row["auroc"] for row in table} == {
        row["statistic"]: row["result"]["auroc"]["value"] for row in data["rows"]
    }
    assert {row["count_in"] for row in table if row["fitted"]} == {30}
    # Coarse grids are simpler than fine ones, and complexity says so by itself.
    assert data["controls"]["rough"]["auroc_complexity"] > 0.9
    assert "\n| score" in (tmp_path / "out" / "evaluation.md").read_text()


def test_a_narrow_table_cuts_no_name_and_no_interval():
    tables = [drawn_table(name, 60, shift, seed) for seed, (name, shift) in enumerate((("in", 0.0), ("out", 1.0)))]
    result = evaluate(tables[0], tables[1:], options=Options(complexity_images=0, resamples=5))
    for columns in (80, 120):
        console = Console(width=columns, file=io.StringIO())
        print_evaluation(console, result)
        shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
        lines = shown.splitlines()
        for row in result.rows:
            auroc = row.result.auroc
            interval = f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]"
            assert any(row.statistic in line and interval in line for line in lines), (columns, row.statistic)
        assert ("AUPR in, AUPR out, FPR95 are shown from 120 columns on" in shown) == (columns < 120)


def test_complexity_measures_what_the_encoder_sees(scored_sets: dict[str, Path]):
    tables = {name: read_table(scored_sets[name]) for name in ("smooth", "rough")}
    bits = {}
    for name, table in tables.items():
        reader = ImageReader.of(table)
        assert reader is not None
        picture = reader.seen(table.keys[0])
        assert picture is not None
        assert picture.size == (28, 28)
        bits[name] = bits_per_pixel(picture)
    assert bits["rough"] > bits["smooth"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--in", "SMOOTH", "--out", "OTHER"), "scores compare within one encoder"),
        (("--in", "SMOOTH", "--out", "SMOOTH"), "names must differ"),
        (("--in", "SMOOTH", "--out", "copy=SMOOTH"), "reference images as well"),
        (("--in", "nowhere", "--out", "SMOOTH"), "neither a directory of jepa-jax score nor a file"),
        (("--in", "UNFINISHED", "--out", "SMOOTH"), "is unfinished"),
    ],
)
def test_a_mistake_is_one_clear_message(
    arguments: tuple[str, ...], message: str, scored_sets: dict[str, Path], tmp_path: Path
):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "manifest.json").write_text('{"format_version": 2, "pinned": {}, "complete": false}')
    paths = {"SMOOTH": scored_sets["smooth"], "OTHER": scored_sets["smooth-other"], "UNFINISHED": unfinished}
    for word, path in paths.items():
        arguments = tuple(argument.replace(word, str(path)) for argument in arguments)
    done = run("evaluate", *arguments)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_set_without_embeddings_is_judged_by_what_it_has():
    drawings = (("in", 40, 0.0, 0), ("whole", 40, 1.0, 1), ("bare", 40, 1.0, 2))
    inside, whole, bare = (drawn_table(*drawn) for drawn in drawings)
    bare = dataclasses.replace(bare, embedding=None)
    found = evaluate(inside, [whole, bare], options=FAST)
    assert found.find("whole", "knn").result == evaluate(inside, [whole], options=FAST).find("whole", "knn").result
    assert {row.statistic for row in found.rows if row.out == "bare"}.isdisjoint({"knn", "mahalanobis", "lof"})
    assert found.find("bare", "score")
    assert "knn is left out for bare: 'bare' has no embedding; score with --save embedding." in found.notes


def test_predicted_scores_are_judged_and_said_to_be():
    inside, outside = drawn_table("in", 40, 0.0, 0), drawn_table("out", 40, 1.0, 1)
    methods = np.array(["exact", "amortised"] * 20, object)
    mixed = dataclasses.replace(outside, groups={"method": methods}, unfamiliar=np.arange(40) < 4)
    found = evaluate(inside, [mixed], options=FAST)
    notes = [note for note in found.notes if "predicted" in note]
    assert notes == [
        "out: 20 of 40 scores are exact, 20 predicted from one forward pass, 2 of them of unfamiliar images; score is "
        "judged as the table has it."
    ]
    assert found.find("out", "score").result == evaluate(inside, [outside], options=FAST).find("out", "score").result
