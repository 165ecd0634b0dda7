"""Which lists make a benchmark of OpenOOD v1.5, and how its lists are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_jax.errors import ArgumentError

CLASSIC, LARGE = "images_classic", "images_largescale"
LISTS = "benchmark_imglist"


@dataclass(frozen=True)
class ImageList:
    """A list and the folder that its paths begin in, both below OpenOOD's data folder."""

    name: str
    file: str
    folder: str

    def rows(self, root: Path) -> list[tuple[str, str]]:
        """Path below the folder, and label, of every picture.

        Raises:
            ArgumentError: there is no such list, or a line of it is none of OpenOOD's.
        """
        path = root / LISTS / self.file
        if not path.is_file():
            raise ArgumentError(f"root={root} has no {LISTS}/{self.file}; it must be OpenOOD v1.5's data folder.")
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                picture, space, label = line.partition(" ")
                if not space:
                    raise ArgumentError(f"line {number} of {path} is {line[:80]!r}; it must be a path and a label.")
                rows.append((picture, label.strip()))
        if not rows:
            raise ArgumentError(f"{path} lists no picture.")
        return rows

    def drawn(self, root: Path, count: int | None, seed: int = 0) -> list[tuple[str, str]]:
        """So many of them at random, in the list's order; all if there are fewer."""
        rows = self.rows(root)
        if count is None or count >= len(rows):
            return rows
        return [rows[i] for i in np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))]


@dataclass(frozen=True)
class Benchmark:
    """An in-set and its out-sets."""

    name: str
    training: ImageList
    test: ImageList
    near: tuple[ImageList, ...]
    far: tuple[ImageList, ...]


def _classic(name: str, other: str) -> Benchmark:
    def of(split: str, dataset: str) -> ImageList:
        return ImageList(dataset, f"{name}/{split}_{dataset}.txt", CLASSIC)

    far = ("mnist", "svhn", "texture", "places365")
    near = of("test", other), of("test", "tin")
    return Benchmark(name, of("train", name), of("test", name), near, tuple(of("test", d) for d in far))


def _large(name: str) -> Benchmark:
    def of(split: str, dataset: str) -> ImageList:
        folder = CLASSIC if dataset == "textures" else LARGE
        return ImageList(dataset, f"{name}/{split}_{dataset}.txt", folder)

    near = tuple(of("test", dataset) for dataset in ("ssb_hard", "ninco"))
    far = tuple(of("test", dataset) for dataset in ("inaturalist", "textures", "openimage_o"))
    return Benchmark(name, of("train", name), of("test", name), near, far)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _classic("cifar10", "cifar100"),
        _classic("cifar100", "cifar10"),
        _large("imagenet200"),
        _large("imagenet"),
    )
}
"""By name."""
