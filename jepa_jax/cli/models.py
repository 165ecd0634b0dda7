"""`jepa-jax models`: every known encoder, as a table to read and as JSON to compute with."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from rich.console import Console
from rich.table import Table

from jepa_jax.encoders import ENCODERS, SHIPPED, EncoderSpec, ViTSpec
from jepa_jax.encoders.function import null_direction_count
from jepa_jax.encoders.parameters import named_arrays, parameter_shapes


def known_models() -> list[dict[str, Any]]:
    """What is known of each encoder without its weights; ``tokens`` at its recipe's image size."""
    return [
        {
            "name": spec.name,
            "family": spec.family,
            "K": spec.embedding_size,
            "tokens": spec.tokens,
            "parameters": _parameter_count(spec.vit),
            "null_directions": null_direction_count(spec.vit),
            "pooling": spec.vit.pooling,
            "patch_size": spec.vit.patch_size,
            "image_size": spec.image_size,
            "tubelet": spec.vit.tubelet,
            "frames": spec.preprocess.frames,
            "frame_step": spec.preprocess.frame_step if spec.preprocess.frames else None,
            "resize_shortest": spec.preprocess.resize_shortest,
            "interpolation": spec.preprocess.interpolation,
            "squeeze": spec.preprocess.squeeze,
            "mean": list(spec.preprocess.mean),
            "std": list(spec.preprocess.std),
            "licence": spec.licence,
            "hub_id": spec.hub_id,
        }
        for spec in ENCODERS.values()
    ]


def print_models(console: Console) -> None:
    """Every known encoder, a line each, under what it shares with its neighbours."""
    for title, specs in itertools.groupby(ENCODERS.values(), key=_shared_facts):
        console.print(f"[bold]{title}[/]", highlight=False)
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("name", no_wrap=True)
        table.add_column("hub id", overflow="fold")
        for heading in ("K", "tokens", "params", "nulls", "side"):
            table.add_column(heading, justify="right", no_wrap=True)
        for spec in specs:
            table.add_row(
                spec.name,
                spec.hub_id or ("(ships with jepa_jax)" if spec.name in SHIPPED else "(its authors' file alone)"),
                str(spec.embedding_size),
                str(spec.tokens),
                f"{_parameter_count(spec.vit) / 1e6:,.0f}M",
                str(null_direction_count(spec.vit)),
                str(spec.image_size),
            )
        console.print(table)
        console.print()
    console.print(
        "K: embedding size, which is the number of rows of a Jacobian. Nulls: null directions, which a score leaves "
        "out. Side: of the input, in pixels; any multiple of the patch size works as --image-size. A hub folder is "
        "read with the preprocessing that lies in it. --json has the same and more."
    )


def _parameter_count(vit: ViTSpec) -> int:
    """Of an encoder of one block, and as many again as there are more: a deep one takes long to trace."""
    sizes = {
        name: math.prod(leaf.shape) for name, leaf in named_arrays(parameter_shapes(dataclasses.replace(vit, depth=1)))
    }
    of_a_block = sum(size for name, size in sizes.items() if name.startswith("blocks."))
    return sum(sizes.values()) + (vit.depth - 1) * of_a_block


def _shared_facts(spec: EncoderSpec) -> str:
    recipe = spec.preprocess
    mean, std = (" ".join(f"{value:.3f}" for value in values) for values in (recipe.mean, recipe.std))
    clips = f"clips of {recipe.frames} frames, step {recipe.frame_step}, " if recipe.frames else ""
    return (
        f"{spec.family}, {spec.licence}, {spec.vit.pooling}: {clips}"
        f"{recipe.interpolation}{' squeeze' * recipe.squeeze}, mean {mean}, std {std}"
    )
