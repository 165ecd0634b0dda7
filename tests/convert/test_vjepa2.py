"""V-JEPA 2's folders: what is read, how videos are prepared, the way back, and what is refused."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_families as families
import torch_vjepa2 as reference
from conversion_files import edit_json, edit_tensors
from safetensors.torch import load_file
from transformers import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2Model

import jepa_jax as jj
from convert_weights.config import Config
from convert_weights.convert import convert, read_source
from convert_weights.export import export, to_huggingface_config
from convert_weights.vjepa2_huggingface import vit_spec
from jepa_jax.encoders import ENCODERS, PreprocessSpec
from jepa_jax.encoders.parameters import named_arrays

SHAPE: dict[str, Any] = {
    "width": 36,
    "heads": 2,
    "depth": 2,
    "mlp_ratio": 1.5,
    "patch_size": 16,
    "image_size": 32,
    "frames": 16,
}
VIDEO = "video_preprocessor_config.json"
PUBLISHED: dict[str, Any] = {
    "_valid_kwargs_names": None,
    "crop_size": {"height": 32, "width": 32},
    "data_format": "channels_first",
    "default_to_square": False,
    "do_center_crop": True,
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "do_sample_frames": False,
    "fps": None,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "num_frames": None,
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 999},
    "video_processor_type": "VJEPA2VideoProcessor",
}
"""As a published folder has it, but for the size, which the class replaces."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder."""
    return families.save_folder(reference.random_vjepa2(**SHAPE), tmp_path_factory.mktemp("vjepa2") / "folder")


@pytest.fixture
def folder(whole: Path) -> Iterator[Path]:
    """The same, which a test may change."""
    before = {name: (whole / name).read_bytes() for name in ("config.json", "model.safetensors")}
    yield whole
    for path in whole.iterdir():
        if path.name not in before:
            path.unlink()
    for name, content in before.items():
        (whole / name).write_bytes(content)


def test_the_predictor_is_left_out(folder: Path):
    source = read_source(folder)
    assert "the predictor, used in pretraining alone" in source.left_out_here.values()
    assert source.spec.preprocess.frames == 16
    assert source.spec.family == "vjepa2"


def test_a_folder_has_its_processors_recipe(folder: Path):
    own = jj.load_encoder(folder).spec.preprocess
    assert own == PreprocessSpec(36, 32, "bilinear", frames=16, frame_step=2)
    for name, content in (
        (VIDEO, PUBLISHED),
        ("preprocessor_config.json", PUBLISHED | {"image_mean": [0.5, 0.5, 0.5]}),
        ("processor_config.json", {"video_processor": PUBLISHED | {"crop_size": 48}}),
    ):
        (folder / name).write_text(json.dumps(content))
    assert jj.load_encoder(folder).spec.preprocess == dataclasses.replace(own, resize_shortest=54, crop=48)
    (folder / "processor_config.json").unlink()
    assert jj.load_encoder(folder).spec.preprocess == own
    (folder / VIDEO).unlink()
    assert jj.load_encoder(folder).spec.preprocess == dataclasses.replace(own, mean=(0.5, 0.5, 0.5))


def test_the_processors_defaults_are_those_in_its_source():
    spec = importlib.util.find_spec("transformers.models.vjepa2")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "video_processing_vjepa2.py").read_text())
    (defined,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = {node.targets[0].id: ast.unparse(node.value) for node in defined.body if isinstance(node, ast.Assign)}  # pyright: ignore[reportAttributeAccessIssue]
    assert found == {
        "resample": "PILImageResampling.BILINEAR",
        "image_mean": "IMAGENET_DEFAULT_MEAN",
        "image_std": "IMAGENET_DEFAULT_STD",
        "size": "{'shortest_edge': int(256 * 256 / 224)}",
        "crop_size": "256",
        **dict.fromkeys(("do_resize", "do_rescale", "do_center_crop", "do_normalize"), "True"),
    }
    assert "resize_size = int(crop_size * 256 / 224)" in ast.unparse(defined)


def test_round_trip_is_bitwise(folder: Path, tmp_path: Path):
    encoder = convert(read_source(folder), tmp_path / "converted")
    export(encoder, tmp_path / "back")
    original, back = load_file(folder / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    kept = {name for name in original if not name.startswith("predictor.")}
    assert kept == {name for name in back if not name.startswith("predictor.")}
    for name in kept:
        assert back[name].numpy().tobytes() == original[name].numpy().tobytes()
    loaded: Any = VJEPA2Model.from_pretrained(tmp_path / "back", output_loading_info=True)
    model, loading = loaded
    assert not any(loading.values()), loading
    again = jj.load_encoder(tmp_path / "back")
    assert (again.spec.vit, again.spec.preprocess) == (encoder.spec.vit, encoder.spec.preprocess)
    clips = np.random.default_rng(0).normal(0, 0.3, (1, *encoder.spec.input_shape)).astype(np.float32)
    expected = reference.stages(model.eval(), clips)[0]
    assert np.linalg.norm(np.asarray(encoder(clips)) - expected) <= 1e-5 * np.linalg.norm(expected)


def test_what_transformers_cannot_be_told_is_not_written(folder: Path, tmp_path: Path):
    with pytest.raises(jj.ArgumentError, match="frame_step=4 cannot be written for transformers"):
        export(jj.load_encoder(folder, frame_step=4), tmp_path / "back")
    assert not (tmp_path / "back").exists()


ORIGINALS = {
    "vjepa2-large": VJEPA2Config(),
    "vjepa2-huge": VJEPA2Config(hidden_size=1280, num_hidden_layers=32),
    "vjepa2-giant-384": VJEPA2Config(
        hidden_size=1408, num_attention_heads=22, num_hidden_layers=40, mlp_ratio=48 / 11, crop_size=384
    ),
}
"""As they are published."""


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_published_configurations_are_the_known_names(name: str, tmp_path: Path):
    ORIGINALS[name].save_pretrained(tmp_path)
    assert vit_spec(Config.read(tmp_path / "config.json")) == ENCODERS[name].vit
    (tmp_path / "config.json").write_text(json.dumps(to_huggingface_config(ENCODERS[name])))
    assert vit_spec(Config.read(tmp_path / "config.json")) == ENCODERS[name].vit


def test_a_classifier_is_its_encoder(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = VJEPA2Config.from_pretrained(folder)
    config.num_pooler_layers = 1
    classifier = VJEPA2ForVideoClassification(config)
    plain = VJEPA2Model.from_pretrained(folder)
    classifier.vjepa2.load_state_dict(plain.state_dict())
    classifier.save_pretrained(tmp_path / "classifier")
    found, expected = jj.load_encoder(tmp_path / "classifier"), jj.load_encoder(folder)
    assert "the head of VJEPA2ForVideoClassification" in caplog.text
    theirs = dict(named_arrays(expected.params))
    for name, array in named_arrays(found.params):
        np.testing.assert_array_equal(array, theirs[name])


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("hidden_act", "relu", "hidden_act is 'relu'; only 'gelu'"),
        ("in_chans", 1, "in_chans is 1; only 3"),
        ("patch_size", [16, 16], "patch_size is [16, 16], expected a whole number"),
        ("tubelet_size", 4, "expected (36, 3, 4, 16, 16)"),
        ("tubelet_size", 3, "frames=16 must be a multiple of 3"),
        ("mlp_ratio", 0, "mlp_ratio is 0, expected a number"),
        ("mlp_ratio", 2.0, "expected (72, 36)"),
        ("num_attention_heads", 4, "make heads of 9; a rotary embedding of clips needs an even number from 6 on"),
        ("num_attention_heads", 9, "make heads of 4; a rotary embedding of clips needs an even number from 6 on"),
        ("frames_per_clip", 0, "frames_per_clip is 0, expected a whole number from 1 to 1024"),
        ("frames_per_clip", 15, "frames=15 must be a multiple of 2"),
        ("crop_size", 40, "native_image_size=40 is not a multiple of patch_size=16"),
        ("layer_norm_eps", 0, "layer_norm_eps is 0"),
        ("num_hidden_layers", 3, "missing (encoder.layer.2."),
    ],
)
def test_a_configuration_that_is_none(field: str, value: Any, expected: str, folder: Path):
    edit_json(folder / "config.json", lambda config: config.update({field: value}))
    with pytest.raises((jj.CheckpointError, jj.ArgumentError)) as error:
        read_source(folder)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"video_processor_type": "VideoMAEVideoProcessor"}, "only VJEPA2VideoProcessor is known"),
        ({"do_sample_frames": True}, "do_sample_frames is True; only False"),
        ({"crop_size": {"height": 32, "width": 16}}, "expected height and width of a square"),
        ({"crop_size": "32"}, "crop_size is '32', expected a whole number"),
        ({"crop_size": 4000}, "crop_size is 4000, expected a whole number from 1 to 3584"),
        ({"do_rescale": False}, "do_rescale is False; only True"),
        ({"do_center_crop": False}, "do_center_crop is false"),
        ({"resample": 0}, "resample is 0"),
        ({"crop_size": 40}, "image_size=40 is not a multiple of the patch size"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order is True, a field that is not known here"),
    ],
)
def test_a_processor_that_is_not_known(changes: dict[str, Any], expected: str, folder: Path):
    (folder / VIDEO).write_text(json.dumps(PUBLISHED | changes))
    with pytest.raises(jj.CheckpointError) as error:
        read_source(folder)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("encoder.layer.0.attention.key.bias", None, "1 missing (encoder.layer.0.attention.key.bias)"),
        ("head.weight", torch.ones(2, 36), "1 unknown (head.weight)"),
        (
            "encoder.embeddings.patch_embeddings.proj.weight",
            torch.ones(36, 3, 16, 16),
            "has shape (36, 3, 16, 16), expected (36, 3, 2, 16, 16)",
        ),
        ("encoder.layernorm.bias", torch.ones(36, dtype=torch.int8), "has dtype int8"),
    ],
)
def test_tensors_that_do_not_fit(name: str, tensor: torch.Tensor | None, expected: str, folder: Path):
    def change(tensors: dict[str, torch.Tensor]) -> None:
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor

    edit_tensors(folder, change)
    with pytest.raises(jj.CheckpointError) as error:
        read_source(folder)
    assert expected in str(error.value)
