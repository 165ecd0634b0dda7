"""What an encoder is, as frozen data: architecture, preprocessing, origin.

Specs are hashable, so that compiled functions are cached per architecture, and they travel as JSON
beside every converted checkpoint.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.recipe import PreprocessSpec

Pooling = Literal["class_token", "mean_patches"]
Activation = Literal["gelu", "quick_gelu", "swiglu"]

KernelDtype = Literal["float32", "bfloat16"]
"""Dtypes that kernels may be stored in; every other parameter is stored in float32."""

PositionResize = Literal["bicubic_offset", "bicubic", "bicubic_antialias"]
"""How position embeddings are resized to another patch grid (see ``positions.py``)."""


@dataclass(frozen=True)
class ViTSpec:
    """Architecture of a vision transformer, enough to build it and to take its Jacobian.

    Attributes:
        width: token dimension d.
        depth: number of transformer blocks.
        heads: attention heads; each has width / heads dimensions.
        patch_size: side of a square patch, pixels.
        native_image_size: side of the square image whose patch grid the position embeddings are
            stored for, pixels (518 for DINOv2, whatever size it is used at).
        mlp_width: hidden width of the MLP (for SwiGLU, of each of its two branches).
        activation: ``gelu`` is the exact (erf) one.
        norm_eps: epsilon of every LayerNorm.
        register_tokens: DINOv2's registers: extra tokens without a position.
        class_token: whether a class token stands before the patches.
        layer_scale: whether each residual branch is scaled per channel.
        qkv_bias: whether query, key and value projections have a bias.
        patch_bias: whether the patch projection has one.
        pre_norm: whether tokens are LayerNormed before the first block (CLIP).
        pooling: which tokens become the embedding, after the final LayerNorm.
        projection: width of a final linear map without bias (CLIP), or None.
        l2_normalize: whether the embedding is divided by its length.
        position_resize: how to resize the position embeddings to another grid.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    native_image_size: int
    mlp_width: int
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    register_tokens: int = 0
    class_token: bool = True
    layer_scale: bool = False
    qkv_bias: bool = True
    patch_bias: bool = True
    pre_norm: bool = False
    pooling: Pooling = "class_token"
    projection: int | None = None
    l2_normalize: bool = False
    position_resize: PositionResize = "bicubic"

    def __post_init__(self):
        for name in ("width", "depth", "heads", "patch_size", "native_image_size", "mlp_width"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.width % self.heads:
            raise ArgumentError(f"width={self.width} is not a multiple of heads={self.heads}.")
        if self.native_image_size % self.patch_size:
            raise ArgumentError(
                f"native_image_size={self.native_image_size} is not a multiple of patch_size={self.patch_size}."
            )
        if self.pooling == "class_token" and not self.class_token:
            raise ArgumentError("pooling='class_token' needs class_token=True.")

    @property
    def embedding_size(self) -> int:
        """K, the number of values in an embedding and of rows in the Jacobian."""
        return self.projection or self.width

    @property
    def native_grid(self) -> int:
        """Side of the patch grid that the position embeddings are stored for."""
        return self.native_image_size // self.patch_size

    @property
    def prefix_tokens(self) -> int:
        """Tokens that stand before the patches: class token and registers."""
        return int(self.class_token) + self.register_tokens


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder: its family, architecture, recipe and origin.

    Attributes:
        name: the name that users type, such as ``dinov2-small``.
        family: ``dinov2``, ``ijepa``, ``clip``, or ``vit`` for encoders trained by this package.
        vit: the architecture.
        preprocess: the recipe; its ``crop`` is the input size in use.
        hub_id: where the weights live on the Hugging Face hub.
        licence: SPDX identifier of the weights' licence.
        gaussian_embedding: whether the encoder was trained to embeddings distributed as N(0, I), so
            that ``gaussian_score`` applies.
        kernel_dtype: what the kernels are stored in. Computation is never narrower than float32.
    """

    name: str
    family: str
    vit: ViTSpec
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    hub_id: str | None = None
    licence: str | None = None
    gaussian_embedding: bool = False
    kernel_dtype: KernelDtype = "float32"

    def __post_init__(self):
        if self.image_size % self.vit.patch_size:
            near = max(1, round(self.image_size / self.vit.patch_size)) * self.vit.patch_size
            raise ArgumentError(
                f"image_size={self.image_size} is not a multiple of the patch size of {self.name!r} "
                f"({self.vit.patch_size}); the nearest that works is {near}."
            )

    @property
    def image_size(self) -> int:
        """Side of the square input image, pixels."""
        return self.preprocess.crop

    @property
    def embedding_size(self) -> int:
        """K, the number of values in an embedding."""
        return self.vit.embedding_size

    def at_image_size(self, size: int) -> EncoderSpec:
        """The same encoder fed with images of another size, a multiple of its patch size."""
        if size <= 0:
            raise ArgumentError(f"image_size={size} must be positive.")
        return dataclasses.replace(self, preprocess=self.preprocess.at_image_size(size))

    def with_position_resize(self, method: PositionResize) -> EncoderSpec:
        """The same encoder with another way of resizing its position embeddings."""
        if method not in typing.get_args(PositionResize):
            raise ArgumentError(
                f"position_resize={method!r} is unknown; use one of {typing.get_args(PositionResize)}."
            )
        return dataclasses.replace(self, vit=dataclasses.replace(self.vit, position_resize=method))

    def with_l2_normalize(self, l2_normalize: bool) -> EncoderSpec:
        """The same encoder with its embedding divided by its length, or not."""
        return dataclasses.replace(self, vit=dataclasses.replace(self.vit, l2_normalize=l2_normalize))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EncoderSpec:
        """The inverse of `to_dict`; unknown or missing fields are errors, not defaults."""
        return _from_plain(cls, data, where="encoder")


def _from_plain(cls: type, data: Any, where: str) -> Any:
    """Rebuild a dataclass from plain JSON data, strictly."""
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: expected an object, found {data!r}.")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}
    if set(data) != names:
        missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
        raise CheckpointError(
            f"{where}: missing fields {missing}, unknown fields {unknown}. It was written by another "
            "version of jepa_jax: convert the weights again."
        )
    values = {name: _value_from_plain(hints[name], data[name], f"{where}.{name}") for name in names}
    try:
        return cls(**values)
    except ArgumentError as error:
        raise CheckpointError(f"{where}: {error} Convert the weights again.") from error


def _value_from_plain(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _from_plain(typing.cast(type, hint), value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        hints = typing.get_args(hint)
        if not isinstance(value, list | tuple) or len(value) != len(hints):
            raise CheckpointError(f"{where}: {value!r} is not a list of {len(hints)} values.")
        return tuple(_value_from_plain(h, v, where) for h, v in zip(hints, value, strict=True))
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise CheckpointError(f"{where}: {value!r} is none of {typing.get_args(hint)}.")
        return value
    accepted = typing.get_args(hint) if origin is types.UnionType else (hint,)
    if float in accepted and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, tuple(accepted)) or (isinstance(value, bool) and bool not in accepted):
        raise CheckpointError(f"{where}: {value!r} is not of type {hint}.")
    return value
