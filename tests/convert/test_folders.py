"""Which files are read: one rule for a folder and for a repository on the hub, that of those who wrote the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_families as families
from conversion_files import edit_json
from local_hub import Hub
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection

import convert_weights.folders
import jepa_jax as jj
from convert_weights.folders import DESCRIPTIONS, OPENCLIP, TRANSFORMERS

pytest_plugins = ["local_hub"]  # the fixture

SHAPE: dict[str, Any] = {"width": 24, "heads": 3, "depth": 2, "mlp_width": 40, "patch_size": 14, "image_size": 28}
DOCS = Path(__file__).resolve().parents[2] / "docs" / "weights.md"


@pytest.fixture(scope="session")
def clip() -> families.Embedder:
    return families.random_clip(**SHAPE, projection=16)


@pytest.fixture(scope="session")
def original(clip: families.Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save_folder(clip, tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "folder"))


def scaled(folder: Path, factor: float) -> dict[str, torch.Tensor]:
    """The folder's tensors, with another projection: its embedding is the factor times as long."""
    tensors = load_file(folder / "model.safetensors")
    return tensors | {"visual_projection.weight": factor * tensors["visual_projection.weight"]}


def halves(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    names = sorted(tensors)
    return [{name: tensors[name] for name in part} for part in (names[: len(names) // 2], names[len(names) // 2 :])]


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], index: str, stem: str) -> None:
    """Two shards under an index, all of these names."""
    suffix = ".safetensors" if "safetensors" in stem else ".bin"
    shards = {
        f"{stem.removesuffix(suffix)}-0000{i}-of-00002{suffix}": part for i, part in enumerate(halves(tensors), 1)
    }
    for name, part in shards.items():
        (save_file if suffix == ".safetensors" else torch.save)(part, folder / name)
    weight_map = {tensor: name for name, part in shards.items() for tensor in part}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def whole_beside_shards(folder: Path) -> None:
    write_shards(folder, scaled(folder, 3), "model.safetensors.index.json", "model.safetensors")


def safetensors_shards(folder: Path) -> None:
    write_shards(folder, scaled(folder, 2), "model.safetensors.index.json", "model.safetensors")
    torch.save(scaled(folder, 3), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def safetensors_shards_of_another_name(folder: Path) -> None:
    write_shards(folder, scaled(folder, 2), "model.safetensors.index.json", "pytorch_model.safetensors")
    (folder / "model.safetensors").unlink()


def pytorch_file(folder: Path) -> None:
    torch.save(scaled(folder, 2), folder / "pytorch_model.bin")
    write_shards(folder, scaled(folder, 3), "pytorch_model.bin.index.json", "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pytorch_shards(folder: Path) -> None:
    write_shards(folder, scaled(folder, 2), "pytorch_model.bin.index.json", "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pytorch_file_beside_a_variant(folder: Path) -> None:
    torch.save(scaled(folder, 2), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")


def shards_in_a_folder_below(folder: Path) -> None:
    (folder / "parts").mkdir()
    write_shards(folder, scaled(folder, 2), "model.safetensors.index.json", "parts/model.safetensors")
    (folder / "model.safetensors").unlink()


def named_by_the_configuration(folder: Path) -> None:
    save_file(scaled(folder, 2), folder / "own.safetensors")
    edit_json(folder / "config.json", lambda config: config.update(transformers_weights="own.safetensors"))


LAYOUTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "whole beside shards": (whole_beside_shards, ["model.safetensors"]),
    "safetensors shards": (
        safetensors_shards,
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    ),
    "shards of another name": (
        safetensors_shards_of_another_name,
        ["pytorch_model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.safetensors"],
    ),
    "pytorch file": (pytorch_file, ["pytorch_model.bin"]),
    "pytorch shards": (pytorch_shards, ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]),
    "beside a variant": (pytorch_file_beside_a_variant, ["pytorch_model.bin"]),
    "below": (
        shards_in_a_folder_below,
        ["parts/model-00001-of-00002.safetensors", "parts/model-00002-of-00002.safetensors"],
    ),
    "named": (named_by_the_configuration, ["own.safetensors"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_transformers_takes_is_taken(layout: str, folder: Path, local_hub: Hub):
    lay_out, chosen = LAYOUTS[layout]
    lay_out(folder)
    theirs = CLIPVisionModelWithProjection.from_pretrained(folder).state_dict()["visual_projection.weight"]
    ours = jj.load_encoder(folder)
    np.testing.assert_array_equal(np.asarray(ours.params["projection"]["kernel"]).T, theirs)
    # From the hub the same files, and no others beside the descriptions.
    local_hub.repositories["someone/clip"] = folder
    assert jj.load_encoder("someone/clip").digest == ours.digest
    assert sorted(set(local_hub.fetched) - set(DESCRIPTIONS)) == chosen


@pytest.mark.parametrize(
    ("shard", "match"),
    [
        ("../outside.safetensors", "which is no file in its folder"),
        ("/etc/outside.safetensors", "which is no file in its folder"),
        ("a/../../outside.safetensors", "which is no file in its folder"),
        ("..\\outside.safetensors", "which is no file in its folder"),
        ("C:outside.safetensors", "which is no file in its folder"),
        ("model\n.safetensors", "which is no file in its folder"),
        ("config.json", "expected a .safetensors or .bin file"),
        (3, "names 3 as a shard"),
        ("absent.safetensors", "lacks absent.safetensors, which its index names"),
        ("*.safetensors", r"lacks \*.safetensors, which its index names"),
    ],
)
def test_index_that_names_what_is_no_shard(shard: Any, match: str, folder: Path, local_hub: Hub, tmp_path: Path):
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    names = dict.fromkeys(load_file(tmp_path / "outside.safetensors"), shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    local_hub.repositories["someone/clip"] = folder
    for source in (folder, "someone/clip"):
        with pytest.raises(jj.CheckpointError, match=match) as error:
            jj.load_encoder(source)
        assert "\n" not in str(error.value)
    assert not set(local_hub.fetched) - set(DESCRIPTIONS)


@pytest.mark.parametrize("file", ["processor_config.json", "preprocessor_config.json"])
def test_recipes_are_fetched(file: str, folder: Path, local_hub: Hub):
    recipe = {"image_processor_type": "CLIPImageProcessor", "size": 42, "crop_size": 28, "image_mean": [0.5] * 3}
    (folder / file).write_text(json.dumps({"image_processor": recipe} if file == "processor_config.json" else recipe))
    local_hub.repositories["someone/clip"] = folder
    found = jj.load_encoder("someone/clip").spec.preprocess
    assert found == jj.load_encoder(folder).spec.preprocess
    assert (found.resize_shortest, found.crop, found.mean) == (42, 28, (0.5, 0.5, 0.5))
    assert file in local_hub.fetched


@pytest.mark.parametrize("source", ["someone/absent", "some one/clip"])
def test_what_is_not_on_the_hub(source: str, local_hub: Hub):
    with pytest.raises(jj.CheckpointError, match=f"^{source} cannot be fetched from the hub") as error:
        jj.load_encoder(source)
    assert local_hub.repositories == {}
    assert "\n" not in str(error.value)


def test_a_variant_alone_is_named(folder: Path):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(jj.CheckpointError, match=r"variant alone \(model\.fp16\.safetensors\).*copy it to model\.saf"):
        jj.load_encoder(folder)


def test_an_adapter_is_no_model(folder: Path):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(jj.CheckpointError, match=r"adapter_config\.json.*merge_and_unload"):
        jj.load_encoder(folder)


def test_quantised_on_loading(folder: Path):
    edit_json(folder / "config.json", lambda config: config.update(quantization_config={"bits": 4}))
    with pytest.raises(jj.CheckpointError, match="quantization_config"):
        jj.load_encoder(folder)


def test_the_documented_table_is_the_one_in_use():
    table = [line for line in (convert_weights.folders.__doc__ or "").splitlines() if line.startswith("|")]
    assert "\n".join(table) in DOCS.read_text()
    for names in (TRANSFORMERS, OPENCLIP):
        places = ["\n".join(table).index(f"`{name}`") for name in names]
        assert places == sorted(places)
