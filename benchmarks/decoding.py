"""How fast pictures are decoded, part by part, and what other ways would gain: ``python -m benchmarks.decoding``.

Five photographs of scikit-image as JPEGs of 500 x 375 pixels and about 100 kB, as ImageNet's are, by the recipe of
encoders at 224 pixels and of jepa-tiny. Results go to ``benchmarks/results/decoding-DATE/decoding.json``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

import jepa_jax as jj
from benchmarks.places import dated
from jepa_jax.images.decoding import InputRecipe, decode
from jepa_jax.images.jpeg_scans import whole_jpeg
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.images.preprocessing import preprocess_one
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources.records import Records, read_file
from jepa_jax.provenance import describe

SIZE = 500, 375
BYTES = 110_000
PHOTOGRAPHS = "astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field"


def photographs() -> list[bytes]:
    """JPEGs of the quality that comes to `BYTES`, 98 at most."""
    import skimage.data

    return [_encoded(Image.fromarray(getattr(skimage.data, name)()[..., :3])) for name in PHOTOGRAPHS]


def _encoded(picture: Image.Image) -> bytes:
    enlarged = max(side / old for side, old in zip(SIZE, picture.size, strict=True))
    sides = tuple(max(side, round(enlarged * old)) for side, old in zip(SIZE, picture.size, strict=True))
    picture = picture.resize((sides[0], sides[1]), Image.Resampling.BICUBIC).crop((0, 0, *SIZE))
    content = b""
    for quality in range(70, 99):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        if len(content := stream.getvalue()) >= BYTES:
            break
    return content


def milliseconds(run: Callable[[bytes], Any], contents: list[bytes], turns: int = 7) -> float:
    """Of a picture, in the fastest of some turns over all: other programs only ever make it slower."""
    took = []
    for _ in range(turns):
        begun = time.perf_counter()
        for content in 4 * contents:
            run(content)
        took.append((time.perf_counter() - begun) / (4 * len(contents)))
    return 1e3 * min(took)


def loaded(content: bytes) -> Image.Image:
    """Decoded by Pillow, and nothing else."""
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def drafted(content: bytes, spec: PreprocessSpec) -> Image.Image:
    """Decoded at 1/2, 1/4 or 1/8 where that is not smaller than what it is resized to."""
    picture = Image.open(io.BytesIO(content))
    short = min(picture.size)
    sides = (-(-side * spec.resize_shortest // short) for side in picture.size)
    picture.draft("RGB", (next(sides), next(sides)))
    picture.load()
    return picture


def parts(contents: list[bytes], spec: PreprocessSpec) -> dict[str, float]:
    """Milliseconds of a picture in this process, and of what it consists."""
    recipe, pictures = InputRecipe(spec), {content: loaded(content).convert("RGB") for content in contents}
    return {
        "all": milliseconds(lambda content: decode(content, "key", recipe), contents),
        "jpeg_by_pillow": milliseconds(loaded, contents),
        "jpeg_headers": milliseconds(whole_jpeg, contents),
        "resize_cut_and_normalise": milliseconds(lambda content: preprocess_one(pictures[content], spec), contents),
    }


def through_workers(contents: list[bytes], spec: PreprocessSpec, workers: int, seconds: float = 4.0) -> float:
    """Pictures per second on the way that they go in a job, from files in the page cache; workers' start left out."""
    count = 20_000
    with tempfile.TemporaryDirectory() as place:
        paths = [Path(place) / f"{number}.jpg" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        locators = [str(paths[i % len(paths)]) for i in range(count)]
        source = Records("photographs", [str(i) for i in range(count)], locators, read_file)
        decoded = decode_ahead(source, range(count), InputRecipe(spec), workers=workers, ahead=64)
        with contextlib.closing(decoded):
            for _ in range(100):
                next(decoded)
            begun, done = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                assert next(decoded).inputs is not None
                done += 1
            return done / (time.perf_counter() - begun)


def draft(contents: list[bytes], spec: PreprocessSpec, scored: bool) -> dict[str, Any]:
    """What draft mode gains, and by how much its pixels and scores differ."""
    exact, other = (
        np.stack([preprocess_one(way(content), spec) for content in contents])
        for way in (loaded, lambda content: drafted(content, spec))
    )
    difference = 255 * np.abs(exact - other) * np.array(spec.std)
    result: dict[str, Any] = {
        "jpeg_milliseconds": milliseconds(lambda content: drafted(content, spec), contents),
        "decoded_size": drafted(contents[0], spec).size,
        "pixels_mean_difference": float(difference.mean()),
        "pixels_largest_difference": float(difference.max()),
    }
    if scored:
        encoder = jj.load_encoder("jepa-tiny")
        one, two = (np.asarray(jj.score(encoder, batch).score) for batch in (exact, other))
        result["scores_nats"] = {"exact": one.tolist(), "difference": (two - one).tolist()}
    return result


def simplejpeg(contents: list[bytes]) -> dict[str, Any] | None:
    """The same libjpeg-turbo through another package, where that is installed."""
    if importlib.util.find_spec("simplejpeg") is None:
        return None
    library: Any = importlib.import_module("simplejpeg")

    def run(content: bytes) -> np.ndarray:
        return library.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False)

    differences = [np.abs(run(content).astype(int) - np.asarray(loaded(content))).max() for content in contents]
    return {
        "version": importlib.metadata.version("simplejpeg"),
        "milliseconds": milliseconds(lambda content: Image.fromarray(run(content)), contents),
        "pixels_largest_difference": int(max(differences)),
    }


def main() -> None:
    """Measure, and write the results."""
    contents = photographs()
    recipes = {"224 pixels": PreprocessSpec(), "jepa-tiny": jj.load_encoder("jepa-tiny").spec.preprocess}
    environment = describe() | {name: features.version(name) for name in ("pil", "jpg", "libjpeg_turbo")}
    result: dict[str, Any] = {"environment": environment, "bytes": [len(content) for content in contents]}
    for name, spec in recipes.items():
        result[name] = {
            "milliseconds": parts(contents, spec),
            "per_second_by_workers": {count: through_workers(contents, spec, count) for count in (1, 2)},
            "draft": draft(contents, spec, name == "jepa-tiny"),
        }
    result["simplejpeg"] = simplejpeg(contents)
    (dated("decoding") / "decoding.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
