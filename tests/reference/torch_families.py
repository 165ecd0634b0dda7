"""The PyTorch side of the parity tests of I-JEPA, CLIP, DINOv3 and SigLIP.

Built like `torch_reference`, whose functions work on these models too: each is wrapped so that what its family
calls the embedding stands where DINOv2 has it, in ``pooler_output``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch_reference as reference  # noqa: F401 (its settings: one thread, no progress bars)
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.dinov3_vit import modeling_dinov3_vit


class Embedder(torch.nn.Module):
    """A `transformers` model with its family's embedding, in the form that `torch_reference` asks for."""

    def __init__(self, model: PreTrainedModel, embed: Callable[[Any], torch.Tensor]):
        super().__init__()
        self.model = model
        self.embed = embed

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.model.dtype

    def forward(self, pixel_values: torch.Tensor, **options: Any) -> SimpleNamespace:
        """As the model, at any size, with ``pooler_output`` [B, K]."""
        with softmax_in(pixel_values.dtype):
            outputs = self.model(pixel_values, interpolate_pos_encoding=True, **options)
        return SimpleNamespace(pooler_output=self.embed(outputs), hidden_states=outputs.get("hidden_states"))


@contextlib.contextmanager
def softmax_in(dtype: torch.dtype) -> Iterator[None]:
    """Plain attention in `transformers` takes its softmax in float32, in a float64 model too; here it does not."""
    softmax = functional.softmax

    def same(logits: torch.Tensor, dim: int, **_: Any) -> torch.Tensor:
        return softmax(logits.to(dtype), dim=dim)

    with mock.patch.object(functional, "softmax", same):
        yield


def random_ijepa(
    width: int,
    heads: int,
    depth: int,
    *,
    mlp_width: int,
    patch_size: int,
    image_size: int,
    qkv_bias: bool = True,
    norm_eps: float = 1e-6,
    seed: int = 0,
) -> Embedder:
    """A random I-JEPA encoder, embedding by the mean over its normalised tokens."""
    config = IJepaConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        intermediate_size=mlp_width,
        patch_size=patch_size,
        image_size=image_size,
        qkv_bias=qkv_bias,
        layer_norm_eps=norm_eps,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )
    return Embedder(randomized(lambda: IJepaModel(config), seed), lambda o: o.last_hidden_state.mean(dim=1))


def random_clip(
    width: int,
    heads: int,
    depth: int,
    *,
    mlp_width: int,
    patch_size: int,
    image_size: int,
    projection: int,
    activation: str = "quick_gelu",
    l2_normalize: bool = False,
    seed: int = 0,
) -> Embedder:
    """A random CLIP image tower, embedding by its projected class token."""
    config = CLIPVisionConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        intermediate_size=mlp_width,
        patch_size=patch_size,
        image_size=image_size,
        projection_dim=projection,
        hidden_act=activation,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )
    model = randomized(lambda: CLIPVisionModelWithProjection(config), seed)
    if l2_normalize:
        return Embedder(model, lambda o: functional.normalize(o.image_embeds, dim=-1))
    return Embedder(model, lambda o: o.image_embeds)


class RotaryEmbedder(Embedder):
    """A DINOv3 model. `transformers` computes its angles in float32, whatever the model's dtype: here in float64."""

    def forward(self, pixel_values: torch.Tensor, **options: Any) -> SimpleNamespace:
        """As the model, at any size."""
        model: Any = self.model
        head_width = model.rope_embeddings.head_dim
        steps = torch.arange(head_width // 4, dtype=torch.float64)
        model.rope_embeddings.inv_freq = model.rope_embeddings.base ** (-4.0 * steps / head_width)
        centres = modeling_dinov3_vit.get_patches_center_coordinates

        def in_float64(rows: int, columns: int, **_: Any) -> torch.Tensor:
            return centres(rows, columns, dtype=torch.float64, device=pixel_values.device)

        with (
            softmax_in(pixel_values.dtype),
            mock.patch.object(modeling_dinov3_vit, "get_patches_center_coordinates", in_float64),
        ):
            outputs = model(pixel_values, **options)
        return SimpleNamespace(pooler_output=outputs.pooler_output, hidden_states=outputs.get("hidden_states"))


def random_dinov3(
    width: int,
    heads: int,
    depth: int,
    *,
    mlp_width: int,
    patch_size: int,
    image_size: int,
    registers: int = 4,
    gated: bool = False,
    biases: tuple[bool, bool] = (True, False),
    base: float = 100.0,
    norm_eps: float = 1e-5,
    seed: int = 0,
) -> Embedder:
    """A random DINOv3 encoder; ``biases`` are those of query and value, and of key."""
    config = DINOv3ViTConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        intermediate_size=mlp_width,
        patch_size=patch_size,
        image_size=image_size,
        num_register_tokens=registers,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
        query_bias=biases[0],
        value_bias=biases[0],
        key_bias=biases[1],
        rope_theta=base,
        layer_norm_eps=norm_eps,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )
    return RotaryEmbedder(randomized(lambda: DINOv3ViTModel(config), seed), lambda o: o.pooler_output)


def whole_clip(embedder: Embedder) -> CLIPModel:
    """A `CLIPModel` of two towers, whose image tower is the given one."""
    vision: Any = embedder.model.config
    text = CLIPTextConfig(
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=32,
        vocab_size=50,
        max_position_embeddings=8,
        projection_dim=vision.projection_dim,
        bos_token_id=48,
        eos_token_id=49,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=vision.projection_dim
    )
    model = CLIPModel(config)
    with torch.no_grad():
        ours = dict(embedder.model.named_parameters())
        for name, parameter in model.named_parameters():
            if name in ours:
                parameter.copy_(ours[name])
    return model


def random_siglip(
    width: int,
    heads: int,
    depth: int,
    *,
    mlp_width: int,
    patch_size: int,
    image_size: int,
    l2_normalize: bool = False,
    norm_eps: float = 1e-6,
    seed: int = 0,
) -> Embedder:
    """A random SigLIP image tower, embedding by its head."""
    config = SiglipVisionConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        intermediate_size=mlp_width,
        patch_size=patch_size,
        image_size=image_size,
        layer_norm_eps=norm_eps,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )
    model = randomized(lambda: SiglipVisionModel(config), seed)
    if l2_normalize:
        return Embedder(model, lambda o: functional.normalize(o.pooler_output, dim=-1))
    return Embedder(model, lambda o: o.pooler_output)


def whole_siglip(embedder: Embedder) -> SiglipModel:
    """A `SiglipModel` of two towers, whose image tower is the given one."""
    vision: Any = embedder.model.config
    text: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 50}
    text |= {"intermediate_size": 32, "max_position_embeddings": 8, "bos_token_id": 48, "eos_token_id": 49}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision.to_dict()))
    model.vision_model.load_state_dict(embedder.model.state_dict())
    return model


def randomized(build: Callable[[], PreTrainedModel], seed: int) -> PreTrainedModel:
    """A model whose parameters are drawn so that each of them shows."""
    with torch.device("meta"):  # nothing is allocated or initialised, as every parameter is drawn below
        model = build()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_draw(name, parameter.shape, generator))
        for name, buffer in model.named_buffers():
            if name == "rope_embeddings.inv_freq":
                continue  # `RotaryEmbedder` computes it
            assert name.endswith("position_ids")
            buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return model.eval().requires_grad_(False)


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Values of one parameter, of a scale at which it matters."""
    if "norm" in name and name.endswith("weight"):
        return torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
    if name.endswith("lambda1"):
        return torch.empty(shape).uniform_(0.3, 1.0, generator=generator)
    normal = torch.randn(shape, generator=generator)
    if len(shape) >= 4:
        # Pixels vary little; strong patch weights let the tokens follow the image.
        return normal * 4.0 / math.sqrt(math.prod(shape[1:]))
    if name.endswith("bias"):
        return normal * 0.2
    if name.endswith(("weight", "in_proj_weight")) and "position" not in name:
        return normal / math.sqrt(shape[1])
    return normal  # class token, positions


def save_folder(model: torch.nn.Module, folder: Path, **options: Any) -> Path:
    """Write a model as a Hugging Face folder; ``options`` go to ``save_pretrained``."""
    inner = model.model if isinstance(model, Embedder) else model
    assert isinstance(inner, PreTrainedModel)
    inner.save_pretrained(folder, **options)
    return folder
