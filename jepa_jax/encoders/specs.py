"""What an encoder is, as frozen data: architecture, preprocessing, origin.

Specs are hashable, so that compiled functions are cached per architecture. What of them is stored and hashed stands
in `identity`; a new field needs a default, and then changes no checkpoint, digest or job that was there before.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from jepa_jax.encoders import identity
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.layers.positions import PositionResize
from jepa_jax.layers.rotary import Periods
from jepa_jax.layers.tubelet_rotary import LEAST_HEAD

Pooling = Literal["class_token", "mean_patches", "attention"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]

KernelDtype = Literal["float32", "bfloat16"]
"""Dtypes that kernels may be stored in; every other parameter is stored in float32."""

MIN_EPS = 1e-30
"""The least epsilon of a LayerNorm: below 1e-38 float32 takes it for zero."""


MAX_ROTARY_BASE = 1e9
"""No base of a rotary embedding comes near it."""


@dataclass(frozen=True)
class ViTSpec:
    """Architecture of a vision transformer, enough to build it and to take its Jacobian.

    Attributes:
        width: token dimension d.
        depth: number of transformer blocks.
        heads: attention heads; each has width / heads dimensions.
        patch_size: side of a square patch, pixels.
        native_image_size: side of the square image whose patch grid the position embeddings are
            stored for, pixels (518 for DINOv2, whatever size it is used at); where none are, the size it is used at.
        mlp_width: hidden width of the MLP (for SwiGLU, of each of its two branches).
        activation: ``gelu`` is the exact (erf) one, ``gelu_tanh`` the one near it by a hyperbolic tangent.
        norm_eps: epsilon of every LayerNorm.
        register_tokens: DINOv2's registers: extra tokens without a position.
        class_token: whether a class token stands before the patches.
        layer_scale: whether each residual branch is scaled per channel.
        qkv_bias: whether query, key and value projections have a bias.
        patch_bias: whether the patch projection has one.
        pre_norm: whether tokens are LayerNormed before the first block (CLIP).
        pooling: which tokens become the embedding, after the final LayerNorm; ``attention`` asks all (SigLIP).
        projection: width of a final linear map without bias (CLIP), or None.
        l2_normalize: whether the embedding is divided by its length.
        position_resize: how to resize the position embeddings to another grid.
        rotary_base: base of the axial rotary embedding of queries and keys (DINOv3), which then stands in place of
            position embeddings; None for these.
        rotary_periods: how the periods of that are rounded.
        key_bias: whether, with ``qkv_bias``, keys have a bias as well.
        cut_edges: whether what no whole patch covers, at the right and below, is left out of an image (SigLIP's so400m
            at 384 pixels has patches of 14) rather than refused.
        class_position: whether the class token has a position.
        norm_after_pooling: whether the final LayerNorm stands behind the pooling (timm's ``fc_norm``).
        tubelet: frames that a patch covers, of an encoder of clips (V-JEPA 2), whose rotary embedding then has three
            axes; None of one of images.
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
    rotary_base: float | None = None
    rotary_periods: Periods = "exact"
    key_bias: bool = True
    cut_edges: bool = False
    class_position: bool = True
    norm_after_pooling: bool = False
    tubelet: int | None = None

    def __post_init__(self):
        for name in ("width", "depth", "heads", "patch_size", "native_image_size", "mlp_width"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.projection is not None and self.projection < 1:
            raise ArgumentError(f"projection={self.projection} must be at least 1.")
        if self.register_tokens < 0:
            raise ArgumentError(f"register_tokens={self.register_tokens} must not be negative.")
        if not MIN_EPS <= self.norm_eps <= 1:
            raise ArgumentError(f"norm_eps={self.norm_eps} must lie between {MIN_EPS:g} and 1.")
        if self.width % self.heads:
            raise ArgumentError(f"width={self.width} is not a multiple of heads={self.heads}.")
        if self.native_image_size < self.patch_size or (
            self.native_image_size % self.patch_size and not self.cut_edges
        ):
            raise ArgumentError(
                f"native_image_size={self.native_image_size} is not a multiple of patch_size={self.patch_size}."
            )
        if self.rotary_base is not None:
            if not 1 < self.rotary_base <= MAX_ROTARY_BASE:
                raise ArgumentError(
                    f"rotary_base={self.rotary_base} must be greater than 1, and at most {MAX_ROTARY_BASE:g}."
                )
            if self.tubelet is None and self.head_width % 4:
                raise ArgumentError(
                    f"width={self.width} and heads={self.heads} make heads of {self.head_width}; a rotary "
                    "embedding needs a multiple of 4."
                )
        if self.tubelet is not None:
            self._check_tubelet(self.tubelet)
        if self.pooling == "class_token" and not self.class_token:
            raise ArgumentError("pooling='class_token' needs class_token=True.")
        if self.pooling == "attention" and self.norm_after_pooling:
            raise ArgumentError("pooling='attention' has norm_after_pooling=False: a norm of its own follows it.")
        if self.pooling == "attention" and (self.heads < 2 or self.activation == "swiglu"):
            raise ArgumentError("pooling='attention' needs two heads or more, and an MLP that is not 'swiglu'.")

    def _check_tubelet(self, frames: int) -> None:
        if frames < 1:
            raise ArgumentError(f"tubelet={frames} must be at least 1.")
        if self.rotary_base is None or self.prefix_tokens or self.rotary_periods != "exact":
            raise ArgumentError(
                f"tubelet={frames}: an encoder of clips has a rotary embedding of exact periods, and neither class "
                "token nor registers; set rotary_base, and class_token=False."
            )
        if self.head_width % 2 or self.head_width < LEAST_HEAD:
            raise ArgumentError(
                f"width={self.width} and heads={self.heads} make heads of {self.head_width}; a rotary embedding of "
                f"clips needs an even number from {LEAST_HEAD} on."
            )

    @property
    def head_width(self) -> int:
        """Dimensions of an attention head."""
        return self.width // self.heads

    @property
    def averages_tokens(self) -> bool:
        """Whether an embedding is a mean over tokens: their rounding errors then partly cancel."""
        return self.pooling == "mean_patches"

    @property
    def frame_axes(self) -> str:
        """The axes of an example that is embedded, as errors name them."""
        return "H, W, 3" if self.tubelet is None else "T, H, W, 3"

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Patches along each axis of an example: of an image (H, W, 3), or of a clip (T, H, W, 3)."""
        *times, rows, columns, _ = shape
        sides = rows // self.patch_size, columns // self.patch_size
        return sides if self.tubelet is None else (times[0] // self.tubelet, *sides)

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

    @property
    def class_positions(self) -> int:
        """Position embeddings that stand before those of the patches: the class token's, or none."""
        return int(self.class_token and self.class_position)


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder: its family, architecture, recipe and origin.

    Attributes:
        name: the name that users type, such as ``dinov2-small``.
        family: ``dinov2``, ``dinov3``, ``ijepa``, ``vjepa2``, ``clip``, ``siglip``, ``timm``, or ``vit`` for
            encoders trained by this package.
        vit: the architecture.
        preprocess: the recipe; its ``crop`` is the input size in use.
        hub_id: where the weights live on the Hugging Face hub.
        licence: SPDX identifier of the weights' licence, or its name where it has none.
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
        if self.image_size < self.vit.patch_size or (self.image_size % self.vit.patch_size and not self.vit.cut_edges):
            near = max(1, round(self.image_size / self.vit.patch_size)) * self.vit.patch_size
            raise ArgumentError(
                f"image_size={self.image_size} is not a multiple of the patch size of {self.name!r} "
                f"({self.vit.patch_size}); the nearest that works is {near}."
            )

        frames, tubelet = self.preprocess.frames, self.vit.tubelet
        if tubelet is None and frames is not None:
            raise ArgumentError(f"frames={frames}: {self.name!r} takes images, and no clips.")
        if tubelet is not None and (frames is None or frames % tubelet):
            raise ArgumentError(
                f"frames={frames} must be a multiple of {tubelet}: {self.name!r} takes clips, and so many frames make "
                "a patch."
            )

    @property
    def image_size(self) -> int:
        """Side of the square input image, pixels."""
        return self.preprocess.crop

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example: (H, W, 3), or (T, H, W, 3) of an encoder of clips."""
        return self.preprocess.shape

    @property
    def tokens(self) -> int:
        """N, that the blocks see."""
        return self.vit.prefix_tokens + math.prod(self.vit.grid(self.input_shape))

    @property
    def embedding_size(self) -> int:
        """K, the number of values in an embedding."""
        return self.vit.embedding_size

    def at_image_size(self, size: int) -> EncoderSpec:
        """The same encoder fed with images of another size, a multiple of its patch size."""
        if size <= 0:
            raise ArgumentError(f"image_size={size} must be positive.")
        return dataclasses.replace(self, preprocess=self.preprocess.at_image_size(size))

    def with_frames(self, frames: int | None, frame_step: int | None) -> EncoderSpec:
        """The same encoder fed with clips of so many frames, a multiple of its tubelet, every so many of a video."""
        if self.vit.tubelet is None:
            given = f"frames={frames}" if frames is not None else f"frame_step={frame_step}"
            raise ArgumentError(f"{given}: {self.name!r} takes images, and no clips; leave it out.")
        told = {"frames": frames, "frame_step": frame_step}
        changes = {name: value for name, value in told.items() if value is not None}
        return dataclasses.replace(self, preprocess=dataclasses.replace(self.preprocess, **changes))

    def with_position_resize(self, method: PositionResize) -> EncoderSpec:
        """The same encoder with another way of resizing its position embeddings."""
        if method not in typing.get_args(PositionResize):
            raise ArgumentError(
                f"position_resize={method!r} is unknown; use one of {typing.get_args(PositionResize)}."
            )
        if self.vit.rotary_base is not None:
            raise ArgumentError(
                f"position_resize={method!r}: {self.name!r} has a rotary embedding, which is computed for every image "
                "size, and no position embeddings to resize; leave it out."
            )
        return dataclasses.replace(self, vit=dataclasses.replace(self.vit, position_resize=method))

    def with_l2_normalize(self, l2_normalize: bool) -> EncoderSpec:
        """The same encoder with its embedding divided by its length, or not."""
        return dataclasses.replace(self, vit=dataclasses.replace(self.vit, l2_normalize=l2_normalize))

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not their defaults, as plain data for JSON."""
        return identity.stored_form(self)

    @classmethod
    def from_dict(cls, data: Any, format_version: int = identity.FORMAT_VERSION) -> EncoderSpec:
        """The inverse of `to_dict`, for plain data of older formats too.

        Raises:
            CheckpointError: a field is unknown, is of another type, or has no default and is missing.
        """
        try:
            return identity.from_plain(cls, identity.migrated(data, format_version), "encoder")
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}. It was written by another version of jepa_jax, or is damaged: convert the weights again."
            ) from error
