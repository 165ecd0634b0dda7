"""timm's plain vision transformer, written anew in PyTorch with its names: timm itself is no dependency of the tests.

It was compared with timm 1.0.20 (`tests/reference/test_parity_timm.py` does so again where timm is installed).
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS: dict[str, Any] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


class Mlp(nn.Module):
    """Two layers; gated, the first half of the hidden ones goes through SiLU."""

    def __init__(self, width: int, hidden: int, activation: str, gated: bool):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden // 2 if gated else hidden, width)
        self.activation, self.gated = activation, gated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, d] -> [B, N, d]."""
        hidden = self.fc1(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            return self.fc2(functional.silu(gate) * value)
        return self.fc2(ACTIVATIONS[self.activation](hidden))


class Attention(nn.Module):
    """Self-attention with one layer for query, key and value."""

    def __init__(self, width: int, heads: int, bias: bool):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, d] -> [B, N, d]."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


class Scale(nn.Module):
    """LayerScale."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., d]."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, args: dict[str, Any]):
        super().__init__()
        width = args["embed_dim"]
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=args["eps"]) for _ in range(2))
        self.attn = Attention(width, args["num_heads"], args["qkv_bias"])
        self.mlp = Mlp(width, int(width * args["mlp_ratio"]), args["act_layer"], args["gated"])
        scaled = args["init_values"] is not None
        self.ls1, self.ls2 = (Scale(width) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, d] -> [B, N, d]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


DEFAULTS: dict[str, Any] = {
    "img_size": 28,
    "patch_size": 14,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
    "qkv_bias": True,
    "init_values": None,
    "class_token": True,
    "no_embed_class": False,
    "reg_tokens": 0,
    "pre_norm": False,
    "global_pool": "token",
    "fc_norm": None,
    "act_layer": "gelu",
    "eps": 1e-6,
    "gated": False,
}


class VisionTransformer(nn.Module):
    """From images [B, 3, H, W] to what timm gives with ``num_classes=0``, in ``pooler_output``, as DINOv2's."""

    def __init__(self, **changes: Any):
        super().__init__()
        self.args = args = DEFAULTS | changes
        width, self.grid = args["embed_dim"], args["img_size"] // args["patch_size"]
        self.prefix = int(args["class_token"]) + args["reg_tokens"]
        self.patch_embed: Any = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, args["patch_size"], args["patch_size"], bias=not args["pre_norm"])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if args["class_token"] else None
        self.reg_token = nn.Parameter(torch.zeros(1, args["reg_tokens"], width)) if args["reg_tokens"] else None
        embedded = 0 if args["no_embed_class"] else self.prefix
        self.pos_embed = nn.Parameter(torch.zeros(1, embedded + self.grid**2, width))
        self.norm_pre = nn.LayerNorm(width, eps=args["eps"]) if args["pre_norm"] else nn.Identity()
        self.blocks = nn.Sequential(*(Block(args) for _ in range(args["depth"])))
        behind = args["global_pool"] == "avg" if args["fc_norm"] is None else args["fc_norm"]
        self.norm = nn.Identity() if behind else nn.LayerNorm(width, eps=args["eps"])
        self.fc_norm = nn.LayerNorm(width, eps=args["eps"]) if behind else nn.Identity()

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.pos_embed.dtype

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False) -> SimpleNamespace:
        """As a model of `transformers`, at the native size or another."""
        patches = self.patch_embed.proj(pixel_values)
        positions, embedded = self.pos_embed, self.pos_embed.shape[1] - self.grid**2
        if patches.shape[-2:] != (self.grid, self.grid):
            grid = positions[:, embedded:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
            grid = functional.interpolate(grid, size=patches.shape[-2:], mode="bicubic", antialias=True)
            positions = torch.cat([positions[:, :embedded], grid.flatten(2).mT], 1)
        tokens = [
            token.expand(len(patches), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None
        ]
        x = torch.cat([*tokens, patches.flatten(2).mT], 1)
        missing = x.shape[1] - positions.shape[1]
        x = self.norm_pre(torch.cat([x[:, :missing], x[:, missing:] + positions], 1))
        states = [x]
        for block in self.blocks:
            x = block(x)
            states.append(x)
        x = self.norm(x)
        pooled = x[:, 0] if self.args["global_pool"] == "token" else x[:, self.prefix :].mean(1)
        return SimpleNamespace(pooler_output=self.fc_norm(pooled), hidden_states=states)


def random_model(seed: int = 0, **changes: Any) -> Any:
    """A model whose every parameter shows."""
    model = VisionTransformer(**changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            normal = torch.randn(parameter.shape, generator=generator)
            if ("norm" in name and name.endswith("weight")) or name.endswith("gamma"):
                parameter.copy_(torch.empty(parameter.shape).uniform_(0.5, 1.5, generator=generator))
            elif name.endswith("bias"):
                parameter.copy_(0.2 * normal)
            elif name.endswith("weight"):
                loud = 4.0 if parameter.ndim == 4 else 1.0
                parameter.copy_(normal * loud / math.sqrt(math.prod(parameter.shape[1:])))
            else:
                parameter.copy_(normal)
    return model.eval().requires_grad_(False)
