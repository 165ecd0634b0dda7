"""Pictures in every format that is opened, as a record of a job."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzzing import Target
from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images import InputRecipe, PreprocessSpec
from jepa_jax.images.decoding import decode_record
from jepa_jax.images.sources.records import read_file

RECIPE = InputRecipe(PreprocessSpec(32, 28))

DEEP = Path(__file__).resolve().parents[1] / "images" / "deep"
"""Small AVIF and JPEG 2000 files of more than 8 bits."""


LOSSY = {"irreversible": True}


def picture(random: np.random.Generator, mode: str) -> Image.Image:
    """Smooth colours with some noise, 20 to 80 pixels a side."""
    width, height = (int(side) for side in random.integers(20, 81, 2))
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 4), np.uint8)).resize((width, height))
    values = np.clip(np.asarray(coarse, np.int16) + random.integers(-9, 10, (height, width, 4)), 0, 255)
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * np.uint16(257))
    return image.convert(mode)


def written(
    random: np.random.Generator, folder: Path, *, suffix: str, modes: tuple[str, ...], ways: tuple[dict, ...] = ({},)
) -> Path:
    """A sound file in one of some modes, written in one of some ways."""
    path = folder / f"picture.{suffix}"
    mode, options = modes[int(random.integers(len(modes)))], ways[int(random.integers(len(ways)))]
    picture(random, mode).save(path, **options)
    return path


def deep(random: np.random.Generator, folder: Path, *, suffix: str) -> Path:
    """One of the deep files."""
    known = sorted(DEEP.glob(f"*.{suffix}"))
    path = folder / f"picture.{suffix}"
    path.write_bytes(known[int(random.integers(len(known)))].read_bytes())
    return path


def score(path: Path) -> np.ndarray:
    """What a job does up to the encoder."""
    found = decode_record(0, path.name, str(path), read_file, RECIPE)
    if found.no_fault_of_its_own or found.unreadable:
        raise AssertionError(f"the machine or the reader is blamed: {found.reason}")
    if found.inputs is None:
        raise ImageError(found.reason)
    assert found.inputs.shape == (1, 28, 28, 3)
    assert np.all(np.isfinite(found.inputs))
    return found.inputs


def target(name: str, make: Callable[..., Path], **options) -> Target:
    """One format."""
    return Target(name, functools.partial(make, **options), score, (ImageError,))


TARGETS = (
    target(
        "jpeg",
        written,
        suffix="jpg",
        modes=("L", "RGB", "CMYK"),
        ways=({}, {"restart_marker_blocks": 2}, {"optimize": True, "subsampling": 2}),
    ),
    target("progressive-jpeg", written, suffix="jpg", modes=("L", "RGB"), ways=({"progressive": True},)),
    target("mpo", written, suffix="mpo", modes=("RGB",)),
    target("png", written, suffix="png", modes=("1", "L", "LA", "P", "RGB", "RGBA"), ways=({}, {"dpi": (9, 9)})),
    target("png-transparent", written, suffix="png", modes=("1", "L", "P"), ways=({"transparency": 3},)),
    target("png16", written, suffix="png", modes=("I;16",), ways=({}, {"transparency": 257})),
    target("webp", written, suffix="webp", modes=("RGB", "RGBA"), ways=({}, {"lossless": True})),
    target("avif", written, suffix="avif", modes=("L", "RGB", "RGBA"), ways=({"speed": 10},)),
    target("deep-avif", deep, suffix="avif"),
    target(
        "tiff",
        written,
        suffix="tif",
        modes=("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
        ways=({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}),
    ),
    target("tiff-jpeg", written, suffix="tif", modes=("L", "RGB", "YCbCr"), ways=({"compression": "jpeg"},)),
    target("gif", written, suffix="gif", modes=("1", "L", "P"), ways=({}, {"transparency": 3}, {"interlace": 0})),
    target("bmp", written, suffix="bmp", modes=("1", "L", "P", "RGB", "RGBA")),
    target("tga", written, suffix="tga", modes=("L", "LA", "P", "RGB", "RGBA"), ways=({}, {"compression": "tga_rle"})),
    target(
        "jpeg2000", written, suffix="jp2", modes=("L", "LA", "RGB", "RGBA", "I;16"), ways=({}, {"irreversible": True})
    ),
    target("deep-jpeg2000", deep, suffix="jp2"),
    target("ppm", written, suffix="ppm", modes=("1", "L", "RGB", "I;16")),
)
