"""The embedding of a block: an encoder that is left behind one of its blocks is an encoder itself.

Layer k is what k blocks make of an image, as `transformers` counts its hidden states: 1 is the first block's output,
the depth the last one's, and -1, -2, ... count from there. Its embedding is

    z_k = pool(norm(tokens behind block k)),

the encoder's own pooling of the tokens in the encoder's own final LayerNorm (in the order that the encoder has them).
So DINOv2's ``get_intermediate_layers(norm=True)`` (its default) gives a block's features, which the field takes for
probes and dense tasks: blocks before the last write to a residual stream whose scale drifts from block to block, and
the norm is what the encoder itself reads that stream through. A projection (CLIP) and a division by the length come
after the pooling, were made for the last block alone, and are left out: layer -1 of CLIP is what its projection is
applied to, and layer -1 of an encoder without either is the encoder.

Nothing else changes: the null directions are those of the norm and the pooling that remain, derived from the
parameters as ever, and all rules for Jacobians hold.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

from jepa_jax.encoders.parameters import Params
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.errors import ArgumentError


def layer_numbers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Layers as numbers from 1 to an encoder's depth, ascending, each once.

    Raises:
        ArgumentError: one is no layer of such an encoder.
    """
    for layer in layers:
        if not 1 <= abs(layer) <= depth:
            raise ArgumentError(
                f"layers={list(layers)}: there is no layer {layer}; the encoder has {depth} blocks: 1 to {depth}, or "
                f"-{depth} to -1, counted from the last."
            )
    return tuple(sorted({layer if layer > 0 else depth + 1 + layer for layer in layers}))


def checked_layers(layers: Any) -> tuple[int, ...]:
    """What a user gave as layers.

    Raises:
        ArgumentError: these are no whole numbers in a sequence.
    """
    try:
        if isinstance(layers, str | bytes):
            raise TypeError
        found = tuple(layers)
        if any(isinstance(layer, bool) for layer in found):
            raise TypeError
        return tuple(operator.index(layer) for layer in found)
    except TypeError:
        raise ArgumentError(f"layers={layers!r} must be a list of whole numbers, such as layers=[-4, -1].") from None


def has_head(vit: ViTSpec) -> bool:
    """Whether an encoder's embedding is more than what its last layer pools."""
    return vit.projection is not None or vit.l2_normalize


def cut_spec(vit: ViTSpec, layer: int) -> ViTSpec:
    """The architecture of a layer, a number from 1 on."""
    return dataclasses.replace(vit, depth=layer, projection=None, l2_normalize=False)


def cut_params(params: Params, layer: int) -> Params:
    """The parameters of a layer, as they are."""
    kept = {name: value for name, value in params.items() if name != "projection"}
    return kept | {"blocks": {number: params["blocks"][number] for number in range(layer)}}
