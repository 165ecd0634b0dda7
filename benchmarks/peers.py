"""What is raced: the same weights and the same image in PyTorch and here, each as a function of nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

import jepa_jax as jj
from jepa_jax.encoders import Encoder


@dataclass(frozen=True)
class Contest:
    """One encoder and one image in both frameworks."""

    model: Dinov2Model
    encoder: Encoder
    image: np.ndarray  # [H, W, 3], preprocessed


def dinov2_small(image_size: int, seed: int = 0) -> Contest:
    """DINOv2-S with random weights of the size of trained ones, on a random image."""
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, layerscale_value=0.5
    )
    model = Dinov2Model(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        encoder = jj.load_encoder(folder, image_size=image_size)
    image = np.random.default_rng(seed).standard_normal((image_size, image_size, 3)).astype(np.float32)
    return Contest(model, encoder, image)


def torch_listing(contest: Contest) -> Callable[[], float]:
    """The paper's listing: torch.autograd.functional.jacobian of the summed embedding, row after row."""
    pixels = torch.from_numpy(contest.image).permute(2, 0, 1)[None]

    def run() -> float:
        contest.model.set_attn_implementation("sdpa")
        jacobian = torch.autograd.functional.jacobian(lambda x: contest.model(x).pooler_output.sum(0), pixels)
        return _torch_score(jacobian)

    return run


def torch_jacrev(contest: Contest, chunk_size: int) -> Callable[[], float]:
    """torch.func.jacrev in chunks of rows.

    With plain attention: PyTorch has no batching rule for the pullback of its fused one, and would loop.
    """
    pixels = torch.from_numpy(contest.image).permute(2, 0, 1)
    jacobian = torch.func.jacrev(lambda x: contest.model(x[None]).pooler_output[0], chunk_size=chunk_size)

    def run() -> float:
        contest.model.set_attn_implementation("eager")
        return _torch_score(jacobian(pixels))

    return run


def _torch_score(jacobian: torch.Tensor) -> float:
    values = torch.linalg.svdvals(jacobian.detach().reshape(jacobian.shape[0], -1))
    return float(values.clip(min=1e-6).log().sum())


def ours(contest: Contest, engine: str) -> Callable[[], float]:
    """jepa_jax with one of its engines."""
    fn, params = jj.score_fn(contest.encoder, engine=engine)
    batch = jax.device_put(contest.image[None])
    return lambda: float(fn(params, batch).listing_score[0])
