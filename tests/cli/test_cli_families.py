"""The command line over every family: convert, export, list, score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import torch_families as families
import torch_reference as reference
from command_line import run
from safetensors.torch import load_file

from jepa_jax.encoders import ENCODERS

SHAPE: dict[str, Any] = {"width": 16, "heads": 2, "depth": 1, "mlp_width": 24, "patch_size": 14, "image_size": 28}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small Hugging Face folder of each family."""
    models: dict[str, torch.nn.Module] = {
        "dinov2": reference.random_dinov2(16, 2, 1, image_size=28),
        "ijepa": families.random_ijepa(**SHAPE),
        "clip": families.random_clip(**SHAPE, projection=12),
    }
    return {name: families.save_folder(model, tmp_path_factory.mktemp(name)) for name, model in models.items()}


def test_convert_and_export(folders: dict[str, Path], tmp_path: Path):
    done = run("convert", folders["clip"], "--output", tmp_path / "half", "--dtype", "bfloat16", "--verbose")
    assert done.returncode == 0, done.stderr
    assert "kernels in bfloat16" in done.stdout
    assert "visual_projection.weight" in done.stdout
    assert "0.0 MB" in done.stdout
    assert json.loads((tmp_path / "half" / "encoder.json").read_text())["spec"]["kernel_dtype"] == "bfloat16"
    done = run("export", tmp_path / "half", "--output", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    tensors = load_file(tmp_path / "back" / "model.safetensors")
    assert tensors["visual_projection.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "openclip"), "is a folder"),
        (("--format", "timm"), "'timm' is not one of"),
        (("--dtype", "float16"), "'float16' is not one of"),
        (("--model", "clip-b32"), "is not what"),
    ],
)
def test_a_mistake_is_one_clear_message(
    folders: dict[str, Path], tmp_path: Path, arguments: tuple[str, ...], message: str
):
    done = run("convert", folders["clip"], "--output", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_told_format_of_a_file(tmp_path: Path):
    torch.save({"logit_scale": torch.zeros(())}, tmp_path / "model.pt")
    done = run(
        "convert", tmp_path / "model.pt", "--model", "clip-b32", "--format", "openai", "--output", tmp_path / "o"
    )
    assert done.returncode == 2
    assert "missing (visual.class_embedding" in done.stderr


def test_models_fit_a_hundred_columns():
    done = run("models", columns=100)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for spec in ENCODERS.values():
        (line,) = [line for line in lines if line.split()[:1] == [spec.name]]
        assert spec.hub_id is None or spec.hub_id in line
        assert f" {spec.embedding_size} " in line
    listed = json.loads(run("models", "--json").stdout)
    assert [model["name"] for model in listed] == list(ENCODERS)
    found = {model["name"]: model for model in listed}
    # As transformers counts them.
    assert found["dinov2-small"]["parameters"] == 22_056_192
    so400m = found["siglip-so400m-patch14-384"]
    assert (so400m["K"], so400m["tokens"], so400m["null_directions"]) == (1152, 729, 0)
    assert (so400m["hub_id"], so400m["licence"]) == ("google/siglip-so400m-patch14-384", "Apache-2.0")
    clips = found["vjepa2-large"]
    assert (clips["K"], clips["tokens"], clips["frames"], clips["null_directions"]) == (1024, 8192, 64, 1)
    assert (clips["hub_id"], clips["licence"]) == ("facebook/vjepa2-vitl-fpc64-256", "MIT")
    for licence in ("Apache-2.0", "MIT", "CC-BY-NC-4.0", "DINOv3 License"):
        assert licence in done.stdout


def test_score_photographs_with_every_family(folders: dict[str, Path], photos: list[Path], tmp_path: Path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for photo in photos[:8]:
        shutil.copy(photo, pictures)
    for name, folder in folders.items():
        output = tmp_path / name
        option = ["--l2-normalize"] if name == "clip" else []
        done = run("score", pictures, "--model", folder, "--output", output, "--image-size", "28", *option)
        assert done.returncode == 0, done.stderr
        tables = [pq.read_table(part) for part in sorted((output / "scores").glob("part-*.parquet"))]
        assert sum(table.num_rows for table in tables) == 8
        rank = {"dinov2": 14, "ijepa": 15, "clip": 11}[name]
        assert set(tables[0]["log_volume_rank"].to_pylist()) == {rank}
