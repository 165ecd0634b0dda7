"""From a folder to a table in memory: `score_folder` against the command's own files, and what a notebook shows."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scored_sets import SPEC, VIT

import jepa_jax as jj
from jepa_jax.analysis import plots
from jepa_jax.analysis.evaluation import evaluate
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.short_table import short_table


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(SPEC, initialize_params(VIT, 0))


@pytest.fixture(scope="module")
def pictures(scored_sets: dict[str, Path]) -> Path:
    return scored_sets["rough"].parent / "images" / "rough"


@pytest.fixture(scope="module")
def scored(pictures: Path, encoder: Encoder) -> jj.ScoredImages:
    return jj.score_folder(pictures, model=encoder, save=["singular_values", "embedding"], quiet=True)


def test_it_is_the_commands_table(scored: jj.ScoredImages, scored_sets: dict[str, Path]):
    files = jj.ScoredImages.read(scored_sets["rough"])
    assert scored.to_arrow().schema == files.to_arrow().schema
    assert scored.to_arrow() == files.to_arrow()
    assert scored.failures.to_pylist() == files.failures.to_pylist() != []
    frame = scored.to_pandas()
    assert list(frame.columns) == scored.to_arrow().column_names
    assert set(frame.precision) == {"float32"}
    np.testing.assert_array_equal(frame.score, scored.scores)


def test_an_output_directory_is_resumed_and_read(pictures: Path, encoder: Encoder, tmp_path: Path):
    arguments = {"model": encoder, "output": tmp_path / "out", "limit": 7, "shuffle_seed": 1}
    first = jj.score_folder(pictures, **arguments, quiet=True)
    written = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    again = jj.score_folder(pictures, **arguments, quiet=True)
    assert first.table == again.table == jj.ScoredImages.read(tmp_path / "out").table
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns >= written
    some = jj.score_folder(pictures, model=encoder, keys=first.keys[:2], quiet=True)
    assert some.keys == first.keys[:2]
    with pytest.raises(jj.JobError, match="precision"):
        jj.score_folder(pictures, **arguments, precision="float64", quiet=True)


def test_layers_are_columns(pictures: Path, encoder: Encoder):
    row, *_ = jj.score_folder(pictures, model=encoder, layers=[1], limit=3, quiet=True).table.to_pylist()
    with Image.open(row["place"]) as picture:
        alone = jj.score(encoder, encoder.preprocess(picture), layers=[1]).layers[1]
    # Both are as near to the exact score as they say.
    near = row["score_error_layer_1"] + float(alone.score_error[0])
    assert row["score_layer_1"] == pytest.approx(float(alone.score[0]), abs=near)


@pytest.mark.parametrize("limit", [-1, 0, 1.5, "7"])
def test_a_limit_that_is_no_count_is_refused(limit: Any, pictures: Path, encoder: Encoder):
    with pytest.raises(jj.ArgumentError, match=f"limit={limit!r} must be a whole number, at least 1"):
        jj.score_folder(pictures, model=encoder, limit=limit, quiet=True)


def test_it_speaks_unless_quiet(pictures: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]):
    jj.score_folder(pictures, model=encoder, limit=2)
    assert "2/2 (100%)" in capsys.readouterr().out


def test_refusals(pictures: Path, encoder: Encoder, tmp_path: Path):
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"model": encoder, "image_size": 56}, "image_size=56 is for a model that is named"),
        ({"extend": True}, "extend=True goes on with an earlier job: give its directory as output"),
        ({"save": "embedding"}, r"save='embedding' is text; give a list, save=\['embedding'\]"),
        ({"keys": "a.png"}, "keys='a.png' is text"),
    )
    for arguments, message in cases:
        with pytest.raises(jj.ArgumentError, match=message):
            jj.score_folder(pictures, **arguments)
    with pytest.raises(jj.ArgumentError, match="does not exist"):
        jj.score_folder(tmp_path / "nowhere", model=encoder)
    with pytest.raises(jj.JobError, match="it is no output of jepa-jax score"):
        jj.ScoredImages.read(tmp_path)
    with pytest.raises(jj.JobError, match="it is no output of jepa-jax score"):
        jj.ScoredImages.read(tmp_path / "nowhere")


def test_it_prints_as_a_short_table(scored: jj.ScoredImages):
    lines = repr(scored).splitlines()
    assert lines[0] == (
        "ScoredImages: 60 images by tiny at 28 pixels, 1 without a score (see .failures); nats, higher = more typical"
    )
    assert lines[1].split() == ["key", "score", "score_error", "precision"]
    assert len(lines) == 13
    assert lines[2].split()[0] == "0"
    assert lines[2].split()[1] == scored.keys[0]
    assert lines[-1].split()[0] == "59"
    assert len({len(line) for line in lines[1:]}) == 1


def test_a_notebook_shows_the_extremes(scored: jj.ScoredImages):
    page = scored._repr_html_()
    HTMLParser().feed(page)
    assert page.count("data:image/webp;base64,") == 16
    assert "<script" not in page
    rows = np.argsort(scored.scores, kind="stable")
    shown = re.findall(r'alt="([^"]*)"', page)
    assert shown == [scored.keys[row] for row in (*rows[:8], *rows[::-1][:8])]
    few = jj.ScoredImages(scored.table.slice(0, 3), scored.failures, scored.manifest)
    assert few._repr_html_().count("<img") == 3
    assert "Rarest first" in few._repr_html_()
    empty = jj.ScoredImages(scored.table.slice(0, 0), scored.failures, scored.manifest)
    assert "0 images" in empty._repr_html_()
    assert len(repr(empty).splitlines()) == 1


def test_hostile_keys_stay_text_and_pictures_may_be_gone(scored: jj.ScoredImages):
    key = "<script>alert(1)</script>\u202e\"'.png"
    table = scored.table.slice(0, 1).set_column(0, scored.table.schema.field("key"), [[key]])
    gone = jj.ScoredImages(table, scored.failures, scored.manifest | {"pinned": {}})
    assert gone.picture(0) is None
    page = gone._repr_html_()
    assert "<script>" not in page
    assert "\u202e" not in page + repr(gone)
    assert "<img" not in page
    with pytest.raises(jj.ArgumentError, match="row=1 is none of the 1 rows"):
        gone.picture(1)


def test_it_goes_where_tables_go(scored: jj.ScoredImages, scored_sets: dict[str, Path]):
    from jepa_jax.scored.reading import read_table

    one, other = scored.as_score_table("rough"), read_table(scored_sets["smooth"])
    np.testing.assert_array_equal(one.scores["score"], read_table(scored_sets["rough"]).scores["score"])
    assert one.null_directions == other.null_directions == 2
    assert evaluate(one, [other], options=None).rows


def test_results_print_as_a_table(encoder: Encoder):
    import jax

    batch = np.random.default_rng(0).normal(size=(12, 28, 28, 3)).astype(np.float32)
    result = jj.score(encoder, batch)
    assert result.precision.tolist() == ["float32"] * 12
    lines = repr(result).splitlines()
    rank, total = result.log_volume_rank, result.embedding.shape[1]
    assert lines[0] == f"ScoreResult: 12 images, {rank} of {total} singular values in a score; nats"
    assert lines[1].split() == ["score", "score_error", "precision"]
    assert lines[7].split() == ["..."] * 4
    assert f"{float(result.score[0]):,.2f}" in lines[2]

    @jax.jit
    def shown(some: jj.ScoreResult) -> jax.Array:
        assert repr(some).startswith("ScoreResult(score=")
        return some.score

    shown(result)
    assert repr(jax.tree.map(lambda leaf: leaf[0], result)).startswith("ScoreResult(score of shape ()")
    assert repr(jax.tree.map(lambda leaf: None, result)).startswith("ScoreResult(")


def test_short_tables():
    assert short_table({"a": [1.0, 0.001], "b": ["x", "yy"]}).splitlines() == [
        "         a   b",
        "0     1.00   x",
        "1  1.0e-03  yy",
    ]
    assert [line.split()[0] for line in short_table({"a": range(30)}, most=3).splitlines()[1:]] == [
        "0",
        "...",
        "28",
        "29",
    ]


# Plots


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_distribution_draws_shares(scored: jj.ScoredImages, scored_sets: dict[str, Path]):
    from jepa_jax.scored.reading import read_table

    smooth = read_table(scored_sets["smooth"])
    axes = plots.distribution(scored, smooth)
    heights = [bar.get_height() for bar in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert sum(heights) == pytest.approx(2)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["tiny, 60 images", "smooth, 60 images"]
    assert plots.distribution(scored, ax=axes) is axes
    with pytest.raises(jj.ArgumentError, match="their scores do not compare"):
        plots.distribution(scored, read_table(scored_sets["smooth-other"]))
    with pytest.raises(jj.ArgumentError, match="column='sore' is none of score, listing_score"):
        plots.distribution(scored, column="sore")
    with pytest.raises(jj.ArgumentError, match="give a set"):
        plots.distribution()


def test_spectrum_draws_quantiles(scored: jj.ScoredImages, pictures: Path, encoder: Encoder):
    axes = plots.spectrum(scored)
    spectra = np.array(scored.table["singular_values"].to_pylist())[:, :-2]
    median = axes.lines[0].get_ydata()
    np.testing.assert_allclose(np.asarray(median, float), np.median(spectra, axis=0), rtol=1e-6)
    assert axes.get_yscale() == "log"
    bare = jj.score_folder(pictures, model=encoder, limit=2, quiet=True)
    with pytest.raises(jj.ArgumentError, match="no singular_values; score it with save="):
        plots.spectrum(bare)


def test_agreement_and_extremes(scored: jj.ScoredImages, scored_sets: dict[str, Path]):
    from jepa_jax.scored.reading import read_table

    smooth, other = (read_table(scored_sets[name]) for name in ("smooth", "smooth-other"))
    axes = plots.agreement(smooth, other)
    assert "over 60 images" in axes.get_title()
    assert len(np.asarray(axes.collections[0].get_offsets())) == 60
    shown = plots.extremes(scored, count=3)
    assert shown.shape == (2, 3)
    assert all(len(place.images) == 1 for place in shown.flat)
    lowest = np.sort(scored.scores)
    assert shown[0, 1].get_title() == f"{lowest[1]:.1f}"
    assert shown[1, 2].get_title() == f"{lowest[-3]:.1f}"
    with pytest.raises(jj.ArgumentError, match="count=31 must lie between 1 and half of the 60 images"):
        plots.extremes(scored, count=31)
