"""Recipes as `AutoImageProcessor` finds and completes them; what is not done here is refused by name."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_families as families
import torch_reference as reference
from PIL import Image
from transformers import (
    AutoImageProcessor,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

import jepa_jax as jj
from convert_weights.processors import PROCESSORS
from jepa_jax.encoders import PreprocessSpec

SHAPE: dict[str, Any] = {"width": 24, "heads": 3, "depth": 1, "mlp_width": 40, "patch_size": 14, "image_size": 28}
HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CLASSES = {
    "CLIPImageProcessor": CLIPImageProcessorPil,
    "BitImageProcessor": BitImageProcessorPil,
    "ViTImageProcessor": ViTImageProcessorPil,
    "SiglipImageProcessor": SiglipImageProcessorPil,
}


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A small folder of each family, without a recipe."""
    models: dict[str, Any] = {
        "clip": families.whole_clip(families.random_clip(**SHAPE, projection=16)),
        "dinov2": reference.random_dinov2(24, 3, 1, image_size=28),
        "dinov2_with_registers": reference.random_dinov2(24, 3, 1, image_size=28, registers=True),
        "ijepa": families.random_ijepa(**SHAPE),
        "siglip": families.whole_siglip(families.random_siglip(**SHAPE)),
    }
    return {name: families.save_folder(model, tmp_path_factory.mktemp(name)) for name, model in models.items()}


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Drawn pictures of several shapes."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).resize((3 * width, 3 * height))
        for height, width in ((40, 60), (90, 50), (64, 64), (301, 97))
    ]


def with_recipe(originals: Mapping[str, Path], family: str, folder: Path, recipe: dict[str, Any]) -> Path:
    shutil.copytree(originals[family], folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
    return folder


def assert_as_transformers(folder: Path, pictures: list[Image.Image], processor: Any = None) -> None:
    processor = processor or AutoImageProcessor.from_pretrained(folder, backend="pil")
    encoder = jj.load_encoder(folder)
    for picture in pictures:
        theirs = processor(images=picture, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
        # Both resize with Pillow to whole levels; what follows is a handful of float32 roundings of values below 5.
        np.testing.assert_allclose(encoder.preprocess([picture]), theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_those_of_the_class(name: str):
    theirs, ours = CLASSES[name](), PROCESSORS[name]
    found = {
        "size": {edge: side for edge, side in dict(theirs.size).items() if side is not None},
        "mean": tuple(theirs.image_mean),
        "std": tuple(theirs.image_std),
        "resample": int(theirs.resample),
        "center_crop": bool(theirs.do_center_crop),
        "crop_size": theirs.crop_size
        and {edge: side for edge, side in dict(theirs.crop_size).items() if side is not None},
        "default_to_square": theirs.default_to_square,
    }
    assert found == {field: getattr(ours, field) for field in found}
    assert theirs.do_resize
    assert theirs.do_rescale
    assert theirs.do_normalize
    assert not theirs.do_pad
    assert theirs.rescale_factor == 1 / 255


def test_dinov3s_defaults_are_those_in_its_source():
    """Its class needs Torchvision, so that its text is read: what is not there is the base class's, off or none."""
    spec = importlib.util.find_spec("transformers.models.dinov3_vit")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "image_processing_dinov3_vit.py").read_text())
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and "Processor" in node.name)
    theirs = {ast.unparse(n.targets[0]): ast.unparse(n.value) for n in body if isinstance(n, ast.Assign)}
    assert theirs == {
        "resample": "PILImageResampling.BILINEAR",
        "image_mean": "IMAGENET_DEFAULT_MEAN",
        "image_std": "IMAGENET_DEFAULT_STD",
        "size": "{'height': 224, 'width': 224}",
        "do_resize": "True",
        "do_rescale": "True",
        "do_normalize": "True",
    }
    ours = PROCESSORS["DINOv3ViTImageProcessor"]
    assert (ours.size, ours.mean, ours.std) == ({"height": 224, "width": 224}, *IMAGENET)
    assert (ours.resample, ours.center_crop, ours.crop_size) == (Image.Resampling.BILINEAR, False, None)


# At an absent field the class decides, whichever family's encoder it is.
@pytest.mark.parametrize(
    ("family", "recipe"),
    [
        ("clip", {}),
        ("dinov2", {}),
        ("ijepa", {}),
        ("clip", {"image_processor_type": "ViTImageProcessor"}),
        ("ijepa", {"image_processor_type": "BitImageProcessor"}),
        ("ijepa", {"image_processor_type": "ViTImageProcessorFast", "size": 28}),
        ("dinov2", {"image_processor_type": "BitImageProcessorFast", "size": 28, "crop_size": 28}),
        ("dinov2_with_registers", {"image_processor_type": "BitImageProcessor", "image_mean": [0.1, 0.2, 0.3]}),
        ("dinov2", {"feature_extractor_type": "ViTFeatureExtractor", "size": 56}),
        ("clip", {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}),
        ("clip", {"size": {"height": 56, "width": 56}, "crop_size": 56}),
        ("clip", {"size": [56, 56], "crop_size": [56, 56]}),
        # null is a value of its own, not an absent field: false, where a flag is due.
        ("clip", {"size": [56, 56], "crop_size": None, "do_center_crop": None}),
        ("clip", {"size": 56, "crop_size": 56, "do_normalize": None, "image_mean": None}),
        ("ijepa", {"size": 56, "default_to_square": None, "do_center_crop": True, "crop_size": 56}),
        ("clip", {"size": 56, "default_to_square": True, "do_center_crop": False}),
        ("ijepa", {"size": 60, "default_to_square": False, "do_center_crop": True, "crop_size": 56}),
        ("siglip", {}),
        ("siglip", {"size": {"height": 56, "width": 56}, "resample": 2, "do_convert_rgb": None}),
        (
            "siglip",
            {"image_processor_type": "SiglipImageProcessorFast", "size": [61, 61], "image_mean": [0.1, 0.2, 0.3]},
        ),
        ("dinov2", {"do_normalize": False}),
        ("dinov2", {"image_mean": 0.4, "image_std": 0.3}),
        ("dinov2", {"resample": 2, "do_convert_rgb": None, "data_format": "channels_first", "device": None}),
    ],
    ids=str,
)
def test_absent_fields(
    family: str,
    recipe: dict[str, Any],
    originals: Mapping[str, Path],
    pictures: list[Image.Image],
    tmp_path: Path,
):
    assert_as_transformers(with_recipe(originals, family, tmp_path / "folder", recipe), pictures)


def test_registers_without_a_class(originals: Mapping[str, Path], pictures: list[Image.Image], tmp_path: Path):
    # AutoImageProcessor knows no class for them; they were published with Bit's.
    folder = with_recipe(originals, "dinov2_with_registers", tmp_path / "folder", {"size": 60, "crop_size": 56})
    assert_as_transformers(folder, pictures, BitImageProcessorPil(size=60, crop_size=56))


def clip_processor(folder: Path, image_processor: CLIPImageProcessorPil) -> CLIPProcessor:
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    vocabulary = {word: i for i, word in enumerate([*letters, "ab</w>", "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    return CLIPProcessor(image_processor=image_processor, tokenizer=CLIPTokenizer.from_pretrained(folder))


def test_recipe_of_a_whole_processor(originals: Mapping[str, Path], pictures: list[Image.Image], tmp_path: Path):
    folder = Path(shutil.copytree(originals["clip"], tmp_path / "folder"))
    half: Any = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    own = CLIPImageProcessorPil(
        size={"shortest_edge": 56},  # pyright: ignore[reportArgumentType]
        crop_size={"height": 56, "width": 56},
        **half,
    )
    clip_processor(tmp_path / "tokenizer", own).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    assert jj.load_encoder(folder).spec.preprocess == PreprocessSpec(56, 56, "bicubic", HALF, HALF)
    assert_as_transformers(folder, pictures)
    # It counts before a preprocessor_config.json; without an image_processor in it, the other does.
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 42, "crop_size": 28}))
    assert_as_transformers(folder, pictures)
    assert jj.load_encoder(folder).spec.preprocess.crop == 56
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert_as_transformers(folder, pictures)
    assert jj.load_encoder(folder).spec.preprocess.crop == 28


@pytest.mark.parametrize(
    ("recipe", "match"),
    [
        ({"image_processor_type": "Siglip2ImageProcessor"}, r"'Siglip2ImageProcessor'; known are CLIPImageProcessor"),
        ({"image_processor_type": 3}, "image_processor_type is 3, expected a string"),
        ({"do_resize": False}, "do_resize is False; only True"),
        ({"do_rescale": False}, "do_rescale is False; only True"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        ({"do_resize": None}, "do_resize is False; only True"),
        ({"do_center_crop": None}, "do_center_crop is false and size is"),
        ({"size": None}, "size is None"),
        ({"resample": None}, "resample is None"),
        ({"image_mean": None}, "image_mean is None"),
        ({"crop_size": None}, "crop_size is None"),
        ({"rescale_factor": None}, "rescale_factor is None"),
        ({"do_pad": True}, "do_pad is True; only False"),
        ({"use_square_size": True}, "use_square_size is True"),
        ({"crop_pct": 0.9}, "crop_pct is 0.9, a field that is not known here"),
        ({"do_center_crop": False}, "do_center_crop is false and size is"),
        ({"do_center_crop": 0}, "do_center_crop is 0, expected true or false"),
        ({"resample": 1}, "resample is 1; only"),
        ({"resample": "bicubic"}, "resample is 'bicubic', expected a whole number"),
        ({"size": {"longest_edge": 224}}, r"size is \{'longest_edge': 224\}, expected one side"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "size is .*, expected one side"),
        ({"size": {"height": 224, "width": 196}}, "expected height and width of a square"),
        ({"size": {"height": 256, "width": 256}}, "crop_size is 224: pictures would be squeezed"),
        ({"size": [224, 224, 3]}, "size is .*, expected one side"),
        ({"size": True}, "size is True, expected one side"),
        ({"size": 0}, "size is 0, expected sides from 1"),
        ({"size": -224}, "size is -224, expected sides from 1"),
        ({"size": 10**9}, "size is 1000000000, expected sides from 1 to 4096"),
        ({"size": 224.5}, "size is 224.5, expected one side"),
        ({"size": "224"}, "size is '224', expected one side"),
        ({"size": 112}, "crop=224 must lie between 1 and resize_shortest=112"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size is .*, expected height and width"),
        ({"crop_size": {"height": 224, "width": 196}}, "crop_size is .*, expected height and width"),
        ({"crop_size": 223}, "image_size=223 is not a multiple of the patch size"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .*, expected three numbers"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, "image_mean is .*nan.*, expected three numbers"),
        ({"image_mean": [0.5, 0.5, True]}, "image_mean is .*, expected three numbers"),
        ({"image_mean": [0.5, 0.5, 10**400]}, "image_mean is .*, expected three numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "must hold numbers from 1e-06"),
        ({"image_std": [0.5, -0.5, 0.5]}, "must hold numbers from 1e-06"),
        ({"image_std": float("inf")}, "image_std is inf, expected three numbers"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_not_done(recipe: dict[str, Any], match: str, originals: Mapping[str, Path], tmp_path: Path):
    folder = with_recipe(originals, "dinov2", tmp_path / "folder", recipe)
    with pytest.raises(jj.CheckpointError, match=match) as error:
        jj.load_encoder(folder)
    assert "\n" not in str(error.value)
