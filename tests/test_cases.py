"""Inputs that once went wrong, as they lie beside the project for development: a right value each, or a sentence.

The same cases, made by themselves, are tests of their rooms; here the files are those that were found outside.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from development_data import SHARED_DATA

import jepa_jax as jj
from jepa_jax.images.decoding import InputRecipe, decode
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources import open_source

MAKE = SHARED_DATA.parent / "cases" / "make_cases.py"
RECIPE = InputRecipe(PreprocessSpec(resize_shortest=64, crop=56))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not MAKE.is_file():
        pytest.skip(f"the development cases are not at {MAKE}")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(MAKE)], cwd=folder, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize(
    ("case", "twin"),
    [
        ("I01_whitezero16.tif", "plain8.png"),
        ("I03_dark16.pgm", "I03_dark16.png"),
        ("I04_trns16.png", "I04_trns8.png"),
    ],
)
def test_a_picture_is_as_its_twin(cases: Path, case: str, twin: str):
    found, expected = (decode((cases / "pictures" / name).read_bytes(), name, RECIPE) for name in (case, twin))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_recipe_in_processor_config_is_read(cases: Path):
    found, twin = (jj.load_encoder(cases / name).spec.preprocess for name in ("C01_processor", "C01_twin"))
    assert found == twin
    assert found.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("case", ["C02_both", "C04_binshards", "C06_variant"])
def test_weights_are_those_that_transformers_takes(cases: Path, case: str):
    found, whole = (jj.load_encoder(cases / name).params for name in (case, "C02_whole"))
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_a_list_without_a_header_keeps_its_first_image(cases: Path):
    found = open_source(cases / "L01_noheader.csv")
    assert list(found.keys) == [f"pictures/{name}" for name in ("plain8.png", "I03_dark16.png", "I04_trns8.png")]


def test_tars_beside_a_picture_are_refused(cases: Path):
    with pytest.raises(jj.ArgumentError, match=r"preview\.png.*00000\.tar|00000\.tar.*preview\.png"):
        open_source(cases / "T01_tars")


def test_a_name_that_cannot_be_shown_is_scored(cases: Path, tmp_path: Path):
    command = [sys.executable, "-m", "jepa_jax", "score", str(cases / "E01"), "--model", str(cases / "C02_whole")]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--workers", "0"],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("latin-1")
    assert b"Traceback" not in done.stderr
    (part,) = (tmp_path / "out" / "scores").glob("part-*.parquet")
    assert pq.read_table(part)["key"].to_pylist() == ["naïve_写真.png"]
