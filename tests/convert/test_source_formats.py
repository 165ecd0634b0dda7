"""Every source format holds the same encoder: read from any, its parameters are equal bit for bit."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch_families as families
import torch_reference as reference
import torch_state_dicts as state_dicts
from parity_table import two_blocks
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTImageProcessorPil

import jepa_jax as jj
from convert_weights.convert import SourceFormat, convert, read_source
from jepa_jax.encoders import ENCODERS, PreprocessSpec, restore_encoder
from jepa_jax.encoders.parameters import named_arrays

SHAPE: dict[str, Any] = {"width": 24, "heads": 3, "depth": 2, "mlp_width": 40, "patch_size": 14, "image_size": 28}
IJEPA = "ijepa-vith14-1k"
CLIP = "metaclip-b16-400m"


def assert_same_params(found: jj.Encoder, expected: jj.Encoder) -> None:
    """Equal bit for bit."""
    ours, theirs = dict(named_arrays(found.params)), dict(named_arrays(expected.params))
    assert ours.keys() == theirs.keys()
    for name, leaf in theirs.items():
        assert ours[name].dtype == leaf.dtype
        assert np.asarray(ours[name]).tobytes() == np.asarray(leaf).tobytes(), name


@dataclasses.dataclass(frozen=True)
class Original:
    """A random model and the encoder from its Hugging Face folder."""

    model: families.Embedder
    folder: Path
    encoder: jj.Encoder


def original(model: families.Embedder, folder: Path) -> Original:
    return Original(model, families.save_folder(model, folder), jj.load_encoder(folder))


@pytest.fixture(scope="module")
def ijepa(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return original(families.random_ijepa(**SHAPE), tmp_path_factory.mktemp("ijepa"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return original(families.random_clip(**SHAPE, projection=16), tmp_path_factory.mktemp("clip"))


@pytest.fixture(autouse=True)
def stand_ins(ijepa: Original, clip: Original, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known names stand for the small architectures here: real files have gigabytes."""
    for name, encoder in ((IJEPA, ijepa.encoder), (CLIP, clip.encoder)):
        monkeypatch.setitem(ENCODERS, name, dataclasses.replace(ENCODERS[name], vit=encoder.spec.vit))


def test_ijepa_training_state(ijepa: Original, tmp_path: Path):
    # The encoder beside the target encoder is another network: the right one was read.
    torch.save(state_dicts.ijepa_training_state(ijepa.model), tmp_path / "IN1K-vit.h.14-300e.pth.tar")
    source = read_source(tmp_path / "IN1K-vit.h.14-300e.pth.tar", IJEPA)
    assert source.origin["format"] == "official:ijepa"
    assert_same_params(source.encoder, ijepa.encoder)


def openclip_file(model: families.Embedder, folder: Path) -> Path:
    torch.save(state_dicts.openclip_state_dict(model), folder / "open_clip_pytorch_model.bin")
    return folder / "open_clip_pytorch_model.bin"


def openclip_safetensors(model: families.Embedder, folder: Path) -> Path:
    save_file(state_dicts.openclip_state_dict(model), folder / "open_clip_model.safetensors")
    return folder / "open_clip_model.safetensors"


def openclip_training_checkpoint(model: families.Embedder, folder: Path) -> Path:
    state = {f"module.{name}": tensor for name, tensor in state_dicts.openclip_state_dict(model).items()}
    torch.save({"epoch": 32, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, folder / "epoch_32.pt")
    return folder / "epoch_32.pt"


@pytest.mark.parametrize("write", [openclip_file, openclip_safetensors, openclip_training_checkpoint])
@pytest.mark.parametrize("told", [None, "openclip"])
def test_openclip(clip: Original, tmp_path: Path, write: Callable[..., Path], told: SourceFormat | None):
    source = read_source(write(clip.model, tmp_path), CLIP, source_format=told)
    assert source.origin["format"] == "openclip:clip"
    assert_same_params(source.encoder, clip.encoder)


@pytest.mark.parametrize("told", [None, "openai"])
def test_openai_in_half_precision(clip: Original, tmp_path: Path, told: SourceFormat | None):
    half = families.random_clip(**SHAPE, projection=16)
    with torch.no_grad():
        for parameter in half.model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
    torch.save(state_dicts.openai_state_dict(clip.model), tmp_path / "ViT-B-16.pt")
    source = read_source(tmp_path / "ViT-B-16.pt", CLIP, source_format=told)
    assert source.origin["format"] == "openai:clip"
    # Widened from half precision exactly: what a folder with the rounded values holds.
    assert_same_params(source.encoder, jj.load_encoder(families.save_folder(half, tmp_path / "half")))


def test_clip_with_its_text_tower(clip: Original, tmp_path: Path):
    folder = families.save_folder(families.whole_clip(clip.model), tmp_path)
    encoder = jj.load_encoder(folder)
    assert encoder.spec.vit == clip.encoder.spec.vit
    assert_same_params(encoder, clip.encoder)


def test_old_clip_folder(clip: Original, tmp_path: Path):
    # pytorch_model.bin with the buffers of older releases, and the values under vision_config_dict.
    folder = families.save_folder(families.whole_clip(clip.model), tmp_path)
    state = load_file(folder / "model.safetensors")
    state["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(8)[None]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["vision_config_dict"] = config.pop("vision_config")
    config["vision_config"] = {"hidden_size": 768}
    (folder / "config.json").write_text(json.dumps(config))
    assert_same_params(jj.load_encoder(folder), clip.encoder)


def test_defaults_of_a_short_clip_config(tmp_path: Path):
    # transformers writes of nested configurations what differs from its defaults, which are those of B/32.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {}}))
    (tmp_path / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")
    with pytest.raises(jj.CheckpointError, match="200 missing"):
        read_source(tmp_path, "clip-b32")


def test_shared_architectures_need_a_name(clip: Original):
    # OpenAI's and MetaCLIP's B/16 have one configuration: the folder alone cannot say whose licence applies.
    assert jj.load_encoder(clip.folder).spec.licence == "CC-BY-NC-4.0"  # the only stand-in of its architecture
    assert read_source(clip.folder, CLIP).spec.hub_id == "facebook/metaclip-b16-400m"
    other = dataclasses.replace(ENCODERS[CLIP], name="other", licence="MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "other", other)
        unnamed = jj.load_encoder(clip.folder)
        assert (unnamed.spec.name, unnamed.spec.licence) == (clip.folder.name, None)
        assert read_source(clip.folder, "other").spec.licence == "MIT"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpoint(clip: Original, tmp_path: Path, dtype: Any):
    source = read_source(clip.folder, kernel_dtype=dtype)
    convert(source, tmp_path / "converted")
    restored = restore_encoder(tmp_path / "converted")
    assert_same_params(restored, source.encoder)
    assert restored.spec.kernel_dtype == dtype
    assert (
        json.loads((tmp_path / "converted" / "encoder.json").read_text())["spec"].get("kernel_dtype", "float32")
        == dtype
    )
    for name, array in named_arrays(restored.params):
        assert array.dtype == (dtype if name.endswith(".kernel") else "float32"), name


def test_bfloat16_kernels_compute_in_float32(clip: Original):
    stored = read_source(clip.folder, kernel_dtype="bfloat16").encoder
    exact = dict(named_arrays(clip.encoder.params))
    for name, leaf in named_arrays(stored.params):
        np.testing.assert_array_equal(leaf, exact[name].astype(leaf.dtype))
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), stored.params)
    batch = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    np.testing.assert_array_equal(stored(batch), jj.Encoder(clip.encoder.spec, params)(batch))
    assert stored(batch).dtype == np.float32
    assert stored.digest != clip.encoder.digest


# One clear error each, and nothing half-written.


def without_target(folder: Path, ijepa: Original, clip: Original) -> tuple[Path, str]:
    del clip
    state = state_dicts.ijepa_training_state(ijepa.model)
    del state["target_encoder"]
    torch.save(state, folder / "model.pth.tar")
    return folder / "model.pth.tar", IJEPA


def partly_prefixed(folder: Path, ijepa: Original, clip: Original) -> tuple[Path, str]:
    del clip
    state = state_dicts.ijepa_training_state(ijepa.model)
    target = state["target_encoder"]
    target["norm.weight"] = target.pop("module.norm.weight")
    torch.save(state, folder / "model.pth.tar")
    return folder / "model.pth.tar", IJEPA


def with_a_head(folder: Path, ijepa: Original, clip: Original) -> tuple[Path, str]:
    del clip
    state = state_dicts.ijepa_training_state(ijepa.model)
    state["target_encoder"]["module.head.weight"] = torch.zeros(3)
    torch.save(state, folder / "model.pth.tar")
    return folder / "model.pth.tar", IJEPA


def of_another_family(folder: Path, ijepa: Original, clip: Original) -> tuple[Path, str]:
    del ijepa
    return openclip_file(clip.model, folder), IJEPA


def with_a_nan(folder: Path, ijepa: Original, clip: Original) -> tuple[Path, str]:
    del ijepa
    state = state_dicts.openclip_state_dict(clip.model)
    state["visual.conv1.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, folder / "model.pt")
    return folder / "model.pt", CLIP


def torchscript(folder: Path, ijepa: Original, clip: Original) -> tuple[Path, str]:
    del ijepa, clip
    with zipfile.ZipFile(folder / "ViT-B-16.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__/multimodal/model/multimodal_transformer.py"):
            archive.writestr(f"ViT-B-16/{name}", "")
    return folder / "ViT-B-16.pt", CLIP


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (without_target, r"no entry 'target_encoder' \(it holds encoder, predictor, opt.*official"),
        (partly_prefixed, r"of 29 names begin with 'module\.'; all must, or none"),
        (with_a_head, r"1 unknown \(head\.weight\)"),
        (of_another_family, r"no entry 'target_encoder'"),
        (with_a_nan, r"1 values of patch_embedding\.projection\.kernel are not finite"),
        (torchscript, r"TorchScript archive.*Hugging Face folder.*state_dict\(\)"),
    ],
)
def test_malformed_sources(
    spoil: Callable[..., tuple[Path, str]], match: str, ijepa: Original, clip: Original, tmp_path: Path
):
    source, name = spoil(tmp_path, ijepa, clip)
    with pytest.raises(jj.CheckpointError, match=match):
        convert(read_source(source, name), tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_index_that_contradicts_its_shards(clip: Original, tmp_path: Path):
    folder = families.save_folder(clip.model, tmp_path, max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first, *_, last = content["weight_map"]
    assert content["weight_map"][first] != content["weight_map"][last]
    content["weight_map"][first] = content["weight_map"][last]
    index.write_text(json.dumps(content))
    with pytest.raises(jj.CheckpointError, match="name different tensors"):
        jj.load_encoder(folder)


@pytest.mark.parametrize(
    ("told", "match"),
    [("openclip", r"is a folder; the format 'openclip' is one file"), ("official", "is a folder")],
)
def test_told_format_of_a_folder(clip: Original, told: SourceFormat, match: str):
    with pytest.raises(jj.ArgumentError, match=match):
        read_source(clip.folder, source_format=told)


@pytest.mark.parametrize(
    ("name", "told", "match"),
    [
        (CLIP, "official", r"format 'official' is none of 'metaclip-b16-400m'; it comes as 'openclip' or 'openai'"),
        (IJEPA, "openclip", r"it comes as 'official'"),
        (CLIP, "huggingface", r"is a file; pass the Hugging Face folder"),
    ],
)
def test_told_format_of_a_file(clip: Original, tmp_path: Path, name: str, told: SourceFormat, match: str):
    with pytest.raises(jj.ArgumentError, match=match):
        read_source(openclip_file(clip.model, tmp_path), name, source_format=told)


def test_squeezing_recipe_equals_its_processor(ijepa: Original, photos: list[Path], tmp_path: Path):
    folder = families.save_folder(ijepa.model, tmp_path)
    processor = ViTImageProcessorPil(size={"height": 28, "width": 28})
    processor.save_pretrained(folder)
    encoder = jj.load_encoder(folder)
    half = (0.5, 0.5, 0.5)
    assert encoder.spec.preprocess == PreprocessSpec(28, 28, "bilinear", half, half, squeeze=True)
    for photo in photos[:4]:
        picture = Image.open(photo).convert("RGB")
        expected = processor(images=picture, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(encoder.preprocess([picture]), expected, rtol=0, atol=1e-6)


def test_squeezing_allows_no_other_resize():
    with pytest.raises(jj.ArgumentError, match="squeeze=True resizes to 224"):
        PreprocessSpec(256, 224, squeeze=True)


FULL_WIDTH: list[tuple[str, SourceFormat, Callable[[Any], Any]]] = [
    ("dinov2-with-registers-giant", "official", reference.official_state_dict),
    (IJEPA, "official", state_dicts.ijepa_training_state),
    (CLIP, "openclip", state_dicts.openclip_state_dict),
    (CLIP, "openai", state_dicts.openai_state_dict),
]


@pytest.mark.parametrize(("name", "told", "state_dict"), FULL_WIDTH)
def test_full_width(
    name: str,
    told: SourceFormat,
    state_dict: Callable[[Any], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.undo()  # the published widths, not the stand-ins
    model = two_blocks(name)
    if told == "openai":  # published in half precision
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.half())
    expected = jj.load_encoder(families.save_folder(model, tmp_path / "folder"))
    torch.save(state_dict(model), tmp_path / "file.pth")
    monkeypatch.setitem(ENCODERS, name, dataclasses.replace(ENCODERS[name], vit=expected.spec.vit))
    assert_same_params(read_source(tmp_path / "file.pth", name, source_format=told).encoder, expected)
