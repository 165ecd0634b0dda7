"""The PyTorch side of the parity tests of V-JEPA 2: random `transformers` models, clips [T, H, W, 3] as ours are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch_families as families
from transformers import VJEPA2Config, VJEPA2Model

PREDICTOR: dict[str, Any] = {
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "pred_num_mask_tokens": 1,
}
"""A small one: an encoder is read beside it."""


def random_vjepa2(
    width: int,
    heads: int,
    depth: int,
    *,
    mlp_ratio: float,
    patch_size: int,
    image_size: int,
    frames: int,
    tubelet: int = 2,
    qkv_bias: bool = True,
    norm_eps: float = 1e-6,
    seed: int = 0,
) -> VJEPA2Model:
    """A random model with plain attention. Its positions are those of clips of ``image_size``."""
    config = VJEPA2Config(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        mlp_ratio=mlp_ratio,
        patch_size=patch_size,
        crop_size=image_size,
        frames_per_clip=frames,
        tubelet_size=tubelet,
        qkv_bias=qkv_bias,
        layer_norm_eps=norm_eps,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
        **PREDICTOR,
    )
    model = families.randomized(lambda: VJEPA2Model(config), seed)
    assert isinstance(model, VJEPA2Model)
    return model


def stages(model: VJEPA2Model, clips: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """In float64: the mean over normalised tokens [B, K], and every block's tokens [B, N, d]."""
    blocks: list[np.ndarray] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output: blocks.append(output[0].numpy()))
        for layer in model.encoder.layer
    ]
    with torch.inference_mode():
        embedding = _embed(model.double(), _frames_first(clips)).numpy()
    for hook in hooks:
        hook.remove()
    model.float()
    return embedding, blocks


def jacobian(model: VJEPA2Model, clip: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
    """Jacobian [K, T, H, W, 3] at one clip [T, H, W, 3], in float64."""
    model.double()
    found = torch.func.jacrev(lambda pixels: _embed(model, pixels)[0, rows], chunk_size=64)(_frames_first(clip[None]))
    model.float()
    return np.ascontiguousarray(np.moveaxis(found.numpy()[:, 0], 2, -1))


def _embed(model: VJEPA2Model, pixels: torch.Tensor) -> torch.Tensor:
    with families.softmax_in(torch.float64):
        return model(pixels, skip_predictor=True).last_hidden_state.mean(dim=1)


def _frames_first(clips: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(clips).double().permute(0, 1, 4, 2, 3)
