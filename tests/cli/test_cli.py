"""The command line as users call it: real processes, exit statuses, messages."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import run
from makes import TINIEST_VIT
from PIL import Image

import jepa_jax as jj
from jepa_jax.cli import reporting
from jepa_jax.encoders import ENCODERS, Encoder, EncoderSpec, PreprocessSpec, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.jacobian.backend_check import Check

SPEC = EncoderSpec("tiny", "dinov2", TINIEST_VIT, PreprocessSpec(resize_shortest=32, crop=28))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_encoder(Encoder(SPEC, initialize_params(TINIEST_VIT, 0)), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


def test_score_writes_a_table_a_manifest_and_the_failures(checkpoint: Path, pictures: Path, tmp_path: Path):
    done = run("score", pictures, "--model", checkpoint, "--output", tmp_path / "out", "--save", "embedding")
    assert done.returncode == 0, done.stderr
    assert "3 images scored, 1 failed" in done.stdout
    table = pq.read_table(tmp_path / "out" / "scores" / "part-00000.parquet")
    scores = ["score", "score_error", "precision", "listing_score", "log_volume_rank"]
    assert table.column_names == ["key", "place", "bytes", *scores, "embedding"]
    assert table["key"].to_pylist() == ["0.png", "1.png", "2.png"]
    failures = pq.read_table(tmp_path / "out" / "failures.parquet").to_pylist()
    assert [f["key"] for f in failures] == ["broken.png"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"]


def test_several_inputs_make_one_table(checkpoint: Path, pictures: Path, tmp_path: Path):
    np.save(tmp_path / "a.npy", np.random.default_rng(1).integers(0, 256, (2, 40, 50, 3), np.uint8))
    output = ("--model", checkpoint, "--output", tmp_path / "out", "--score-only")
    done = run("score", pictures / "0.png", tmp_path / "a.npy", *output)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "out" / "scores" / "part-00000.parquet")
    assert table["key"].to_pylist() == ["0.png", "a.npy/0", "a.npy/1"]
    done = run("score", pictures, tmp_path / "a.npy", "--column", "image", *output)
    assert done.returncode == 2
    assert "a folder of images has no columns or other parts" in done.stderr


def test_a_random_sample_is_scored_and_resumed_as_itself(checkpoint: Path, pictures: Path, tmp_path: Path):
    command = ("score", pictures, "--model", checkpoint, "--output", tmp_path / "out", "--score-only", "--limit")
    for _ in range(2):  # the second finds it done
        done = run(*command, "2", "--shuffle-seed", "3")
        assert done.returncode == 0, done.stderr
        assert "2 images in" in done.stdout
    table = pq.read_table(tmp_path / "out" / "scores" / "part-00000.parquet")
    failed = pq.read_table(tmp_path / "out" / "failures.parquet").to_pylist()
    assert len(table) + len(failed) == 2
    other = run(*command, "3", "--shuffle-seed", "3")
    assert other.returncode == 2
    assert "belongs to another job (input: 2 records there and 3 now" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "dinov2-smal"), "did you mean 'dinov2-small'"),
        (("--model", "nobody/nothing"), "hf download nobody/nothing"),
        (("--model", "CHECKPOINT", "--image-size", "100"), "nearest that works is 98"),
        (("--model", "CHECKPOINT", "--batch-size", "0"), "--batch-size"),
        (("--memory", "nan"), "memory=nan must be a positive number of GiB"),
        (("--processes", "2", "--num-processes", "2", "--process-id", "0"), "give the one or the others"),
    ],
)
def test_a_mistake_is_one_clear_message(
    arguments: tuple[str, ...], message: str, checkpoint: Path, pictures: Path, tmp_path: Path
):
    given = [str(checkpoint) if a == "CHECKPOINT" else a for a in arguments]
    done = run("score", pictures, "--output", tmp_path / "out", *given)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_name_is_not_the_folder_that_one_is_in(checkpoint: Path, pictures: Path, tmp_path: Path):
    score = ("score", "--model", checkpoint, "--output")
    mistakes = {
        (*score, "", pictures): "output '' names nothing",
        (*score, tmp_path / "out", ""): "input '' names nothing",
        ("report", ""): "scored set '' names nothing",
        ("select", pictures, "--output", "", "--rarest", "1"): "output '' names nothing",
    }
    for arguments, message in mistakes.items():
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr


def test_no_image_is_a_clear_message(checkpoint: Path, tmp_path: Path):
    done = run("score", tmp_path, "--model", checkpoint, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "holds no image" in done.stderr


def test_models_lists_every_name():
    done = run("models")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ENCODERS)


def test_doctor_trusts_this_backend():
    done = run("doctor")
    assert done.returncode == 0
    assert jj.__version__ in done.stdout
    assert "can be trusted" in done.stdout


def test_doctor_fails_on_a_lying_backend(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from rich.console import Console

    monkeypatch.setattr(reporting, "check_backend", lambda platform: [Check("softmax", error=0.2, tolerance=1e-5)])
    found = reporting.diagnosis()
    assert not found["trusted"]
    reporting.print_diagnosis(Console(), found)
    assert "WRONG" in capsys.readouterr().out


def test_demo_runs_to_a_table_and_a_report(tmp_path: Path):
    done = run("demo", "--output", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "images scored" in done.stdout
    manifest = json.loads((tmp_path / "demo" / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["scored"] >= 20
    assert str(tmp_path / "demo" / "report.html") in done.stdout
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("data:image/webp") >= 20
    again = run("demo", "--output", tmp_path / "demo")
    assert again.returncode == 2
    assert "not empty" in again.stderr


def test_jepa_jax_never_imports_torch():
    code = (
        "import sys, pkgutil, importlib, jepa_jax\n"
        "for m in pkgutil.walk_packages(jepa_jax.__path__, 'jepa_jax.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (("study", "synthetic", "--output", "out"), "matplotlib", "study"),
        (("study", "card", "--cifar10", "a.npz", "--outliers", "b.npz"), "matplotlib", "study"),
        (("evaluate", "--in", "a", "--out", "b"), "sklearn", "analysis"),
        (("report", "a"), "jinja2", "analysis"),
        (("demo", "--output", "a"), "skimage", "demo"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    command: tuple[str, ...], missing: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # As Python itself says that a module is not there: None in its place.
    program = f"import sys; sys.modules[{missing!r}] = None; from jepa_jax.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    called = {"sklearn": "scikit-learn", "scipy": "SciPy", "jinja2": "Jinja2", "skimage": "scikit-image"}
    message = f"this needs {called.get(missing, missing)}, not installed here: pip install 'jepa-jax[{extra}]'."
    assert message in " ".join(done.stderr.split())
