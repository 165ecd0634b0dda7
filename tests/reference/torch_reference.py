"""The PyTorch side of the parity tests: random `transformers` DINOv2 models, their embeddings and Jacobians.

No weights can be downloaded where tests run, so models are random; their parameters are drawn so that
every one of them shows in the embedding, and none can be dropped, swapped or transposed unseen.
Every parameter is a float32 number, also where a model computes in float64.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)
from transformers.utils import logging

# Its progress bar over saved shards would fill the test log.
logging.disable_progress_bar()

# Models and images are small here: a second thread gains little, and loses much where cores are shared.
torch.set_num_threads(1)

PATCH = 14
REGISTERS = 4

DinoModel = Dinov2Model | Dinov2WithRegistersModel


def random_dinov2(
    width: int,
    heads: int,
    depth: int,
    *,
    image_size: int,
    registers: bool = False,
    swiglu: bool = False,
    seed: int = 0,
) -> DinoModel:
    """A random model, in float32 and with plain (eager) attention.

    Args:
        width: token dimension.
        heads: attention heads.
        depth: blocks.
        image_size: native size: the positions are stored for its patch grid.
        registers: with register tokens.
        swiglu: with the giant's SwiGLU in place of the MLP.
        seed: of the parameters.
    """
    shape: dict[str, Any] = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": depth,
        "image_size": image_size,
        "patch_size": PATCH,
        "use_swiglu_ffn": swiglu,
        "attn_implementation": "eager",
    }
    with torch.device("meta"):  # nothing is allocated or initialised, as every parameter is drawn below
        if registers:
            model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=REGISTERS, **shape))
        else:
            model = Dinov2Model(Dinov2Config(**shape))
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_draw(name, parameter.shape, generator))
    return model.eval().requires_grad_(False)


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Values of one parameter, of a scale at which it matters."""
    if "norm" in name and name.endswith("weight"):
        return torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
    if name.endswith("lambda1"):
        return torch.empty(shape).uniform_(0.3, 1.0, generator=generator)
    normal = torch.randn(shape, generator=generator)
    if "projection.weight" in name:
        # Pixels are correlated and vary little; strong patch weights let the tokens follow the image.
        return normal * 4.0 / math.sqrt(math.prod(shape[1:]))
    if name.endswith("weight"):
        # Queries and keys of unit variance: attention is neither uniform nor one-hot.
        return normal / math.sqrt(shape[1])
    if name.endswith("bias"):
        return normal * 0.2
    return normal  # class, mask and register tokens, positions


def torch_embedding(model: DinoModel, images: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Embeddings [B, K] of images [B, H, W, 3], computed in ``dtype``."""
    with _computing_in(model, dtype), torch.inference_mode():
        return _embed(model, _channels_first(images, dtype)).numpy()


def torch_block_outputs(model: DinoModel, images: np.ndarray, dtype: torch.dtype) -> list[np.ndarray]:
    """The tokens [B, N, d] before the first block and after every block."""
    with _computing_in(model, dtype), torch.inference_mode():
        outputs = model(pixel_values=_channels_first(images, dtype), output_hidden_states=True)
        return [state.numpy() for state in outputs.hidden_states]


def torch_jacobian(
    model: DinoModel, image: np.ndarray, dtype: torch.dtype, rows: Sequence[int] | slice = slice(None)
) -> np.ndarray:
    """Jacobian [K, H, W, 3] at one image [H, W, 3], by `torch.func.jacrev`; of some rows alone if asked."""

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return _embed(model, pixels)[0, rows]

    with _computing_in(model, dtype):
        jacobian = torch.func.jacrev(embed, chunk_size=64)(_channels_first(image[None], dtype))
    return np.ascontiguousarray(np.moveaxis(jacobian.numpy()[:, 0], 1, -1))


def paper_listing(model: DinoModel, images: np.ndarray) -> np.ndarray:
    """JEPA-SCORE [B] as the paper lists it (arXiv 2510.05949), in float64."""
    eps = 1e-6
    with _computing_in(model, torch.float64):
        jacobian = torch.autograd.functional.jacobian(
            lambda pixels: _embed(model, pixels).sum(0), _channels_first(images, torch.float64)
        )
    with torch.inference_mode():
        matrices = torch.as_tensor(jacobian).flatten(2).permute(1, 0, 2)
        return torch.linalg.svdvals(matrices).clip(eps).log().sum(1).numpy()


def _embed(model: DinoModel, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).pooler_output


def _channels_first(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.as_tensor(images).to(dtype).permute(0, 3, 1, 2)


@contextlib.contextmanager
def _computing_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The model in another dtype for a while, and back: without loss, since every parameter is a float32 number."""
    before = next(model.parameters()).dtype
    model.to(dtype)
    scope = float64_interpolation() if dtype == torch.float64 else contextlib.nullcontext()
    try:
        with scope:
            yield
    finally:
        model.to(before)


@contextlib.contextmanager
def float64_interpolation() -> Iterator[None]:
    """Make `torch.nn.functional.interpolate` compute in float64.

    `transformers` casts position embeddings to float32 before it resizes them, in a float64 model too,
    which would limit every comparison away from the native size to 1e-7. The cast itself loses nothing
    here, as the embeddings are float32 numbers; the resize after it would.
    """
    interpolate = functional.interpolate

    def in_float64(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return interpolate(input.to(torch.float64), *args, **kwargs)

    with mock.patch.object(functional, "interpolate", in_float64):
        yield


@contextlib.contextmanager
def official_positions(model: DinoModel) -> Iterator[None]:
    """Resize position embeddings as the official DINOv2 without registers does: by (new + 0.1) / old.

    The official code adds 0.1 against rounding in the number of patches, which moves every sample point.
    `transformers` asks for the size instead.
    """

    def interpolate_pos_encoding(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        positions = model.embeddings.position_embeddings
        side = math.isqrt(positions.shape[1] - 1)
        if tokens.shape[1] == positions.shape[1] and height == width:
            return positions
        grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        new = height // PATCH, width // PATCH
        resized = functional.interpolate(
            grid, mode="bicubic", scale_factor=tuple((count + 0.1) / side for count in new)
        )
        assert resized.shape[-2:] == new
        return torch.cat((positions[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)

    with mock.patch.object(model.embeddings, "interpolate_pos_encoding", interpolate_pos_encoding):
        yield


def save_folder(model: DinoModel, folder: Path, **options: Any) -> Path:
    """Write a model as a Hugging Face folder; ``options`` go to ``save_pretrained``."""
    model.save_pretrained(folder, **options)
    return folder


def official_state_dict(model: DinoModel) -> dict[str, torch.Tensor]:
    """A model's parameters under the names and in the layout of the official ``.pth`` files, in float32.

    Written from the official module names and from those of the `transformers` modules in memory, which
    are not those of its files, so it shares nothing with the tables in ``convert_weights``.
    """
    theirs: dict[str, torch.Tensor] = dict(model.named_parameters())
    official = {
        "cls_token": theirs["embeddings.cls_token"],
        "pos_embed": theirs["embeddings.position_embeddings"],
        "mask_token": theirs["embeddings.mask_token"],
    }
    if "embeddings.register_tokens" in theirs:
        official["register_tokens"] = theirs["embeddings.register_tokens"]
    for kind in ("weight", "bias"):
        official[f"patch_embed.proj.{kind}"] = theirs[f"embeddings.patch_embeddings.projection.{kind}"]
        official[f"norm.{kind}"] = theirs[f"layernorm.{kind}"]
    for i in range(model.config.num_hidden_layers):
        layer, block = f"encoder.layer.{i}", f"blocks.{i}"
        official[f"{block}.ls1.gamma"] = theirs[f"{layer}.layer_scale1.lambda1"]
        official[f"{block}.ls2.gamma"] = theirs[f"{layer}.layer_scale2.lambda1"]
        for kind in ("weight", "bias"):
            official[f"{block}.norm1.{kind}"] = theirs[f"{layer}.norm1.{kind}"]
            official[f"{block}.norm2.{kind}"] = theirs[f"{layer}.norm2.{kind}"]
            query_key_value = [theirs[f"{layer}.attention.{part}_proj.{kind}"] for part in "qkv"]
            official[f"{block}.attn.qkv.{kind}"] = torch.cat(query_key_value)
            official[f"{block}.attn.proj.{kind}"] = theirs[f"{layer}.attention.o_proj.{kind}"]
            if model.config.use_swiglu_ffn:
                gate_up = [theirs[f"{layer}.mlp.{part}_proj.{kind}"] for part in ("gate", "up")]
                official[f"{block}.mlp.w12.{kind}"] = torch.cat(gate_up)
                official[f"{block}.mlp.w3.{kind}"] = theirs[f"{layer}.mlp.down_proj.{kind}"]
            else:
                official[f"{block}.mlp.fc1.{kind}"] = theirs[f"{layer}.mlp.fc1.{kind}"]
                official[f"{block}.mlp.fc2.{kind}"] = theirs[f"{layer}.mlp.fc2.{kind}"]
    return {name: tensor.detach().to(torch.float32) for name, tensor in official.items()}
