"""`jepa-jax bench` as users call it."""

import io
import json
from pathlib import Path

import pytest
from command_line import run
from makes import TINIEST_VIT
from rich.console import Console

from jepa_jax.cli.bench import _table
from jepa_jax.costs.throughput import Throughput, default_levels, measure_throughput
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.numerics.precision import LEVELS, Precision

SPEC = EncoderSpec("tiny", "dinov2", TINIEST_VIT, PreprocessSpec(resize_shortest=32, crop=28))


def test_it_measures_and_compares(tmp_path: Path):
    save_encoder(Encoder(SPEC, initialize_params(TINIEST_VIT, 0)), tmp_path / "tiny")
    result = tmp_path / "results" / "here.json"
    done = run("bench", "--model", tmp_path / "tiny", "--batch-size", "2", "--layer", "-1", "--output", result)
    assert done.returncode == 0, done.stderr
    assert "tiny at 28 pixels" in done.stdout
    assert "and its layer 1 on" in done.stdout
    found = json.loads(result.read_text())
    assert {"device", "jax", "jepa_jax", "commit", "processor"} <= found["facts"].keys()
    assert (found["facts"]["layers"], found["facts"]["frames"]) == ([1], None)
    (row,) = found["rows"]
    assert (row["precision"], row["batch_size"], row["emulated"]) == ("float32", 2, False)
    assert row["images_per_second"] == pytest.approx(1000 / row["milliseconds"])
    assert row["peak_bytes"] > 0
    assert row["forward_passes"] > 1
    assert row["error"] <= 2 * row["score_error"]

    faster = tmp_path / "faster.json"
    faster.write_text(json.dumps(found | {"rows": [row | {"milliseconds": row["milliseconds"] / 3}]}))
    done = run("bench", "--compare", result, faster)
    assert done.returncode == 0, done.stderr
    assert "(3.00x)" in done.stdout


@pytest.mark.parametrize("milliseconds", [13.6, 21386.4])
def test_the_table_fits_a_narrow_window(milliseconds: float):
    row = {"batch_size": 8, "emulated": False, "images_per_second": 1000 / milliseconds, "milliseconds": milliseconds}
    row |= {
        "ceiling_share": 0.9,
        "forward_passes": 283.0,
        "peak_bytes": 8350 * 2**20,
        "error": None,
        "score_error": 0.01,
    }
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_table([row | {"precision": level} for level in ("bfloat16", "float16", "bfloat16_3x", "float32")]))
    shown = console.export_text()
    assert "…" not in shown
    assert len(shown.splitlines()) == 5
    assert ("21,386" if milliseconds > 1000 else "13.6") in shown


def test_what_makes_no_sense_is_one_sentence(tmp_path: Path):
    (tmp_path / "other.json").write_text("[]")
    for arguments, message in (
        (["--compare"], "none is given"),
        (["--compare", tmp_path / "other.json"], "no result of jepa-jax bench"),
        ([tmp_path / "other.json"], "give --compare"),
        (["--precision", "float8"], "precision='float8' is unknown"),
    ):
        done = run("bench", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_what_auto_begins_with_is_measured_first_and_one_row_always():
    assert default_levels("cpu") == ["float32"]
    assert default_levels("gpu") == ["float16", *(level for level in LEVELS[:-1] if level != "float16")]
    assert "float16" not in default_levels("tpu")
    told: list[list[Throughput]] = []
    encoder = Encoder(SPEC, initialize_params(TINIEST_VIT, 0))
    levels: list[Precision] = ["bfloat16", "float32"]
    rows = measure_throughput(encoder, levels, [2, 1], seconds=0, done=lambda rows: told.append([*rows]))
    assert [(row.precision, row.batch_size, row.error) for row in rows] == [("bfloat16", 2, None)]
    assert rows[0].emulated
    assert told == [rows]
