"""The PyTorch side of the parity tests of I-JEPA, CLIP and SigLIP, and their source formats by independent tables.

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


# The other formats, written from the official module names and those of the `transformers` modules in memory, which
# are not those of its files: nothing is shared with the tables in convert_weights.


def ijepa_training_state(embedder: Embedder) -> dict[str, Any]:
    """A training state like the official ``.pth.tar``; its context encoder and predictor are other networks."""
    model: Any = embedder.model
    target: dict[str, torch.Tensor] = {
        "pos_embed": model.embeddings.position_embeddings,
        "patch_embed.proj.weight": model.embeddings.patch_embeddings.projection.weight,
        "patch_embed.proj.bias": model.embeddings.patch_embeddings.projection.bias,
        "norm.weight": model.layernorm.weight,
        "norm.bias": model.layernorm.bias,
    }
    for i, layer in enumerate(model.layers):
        attention = layer.attention
        for kind in ("weight", "bias"):
            query_key_value = [getattr(part, kind) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
            block = {
                "norm1": getattr(layer.layernorm_before, kind),
                "attn.qkv": torch.cat(query_key_value),
                "attn.proj": getattr(attention.o_proj, kind),
                "norm2": getattr(layer.layernorm_after, kind),
                "mlp.fc1": getattr(layer.mlp.fc1, kind),
                "mlp.fc2": getattr(layer.mlp.fc2, kind),
            }
            target |= {f"blocks.{i}.{name}.{kind}": tensor for name, tensor in block.items()}
    target = {f"module.{name}": tensor.detach().float() for name, tensor in target.items()}
    return {
        "encoder": {name: torch.randn_like(tensor) for name, tensor in target.items()},
        "predictor": {"module.mask_token": torch.zeros(1, 1, 4)},
        "target_encoder": target,
        "opt": {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "scaler": None,
        "epoch": 300,
        "loss": 0.1,
        "batch_size": 16,
        "world_size": 16,
        "lr": 1e-3,
    }


def dinov3_state_dict(embedder: Embedder) -> dict[str, torch.Tensor]:
    """A state dict as the official DINOv3's: biases of keys too, behind a mask, and periods as float32 numbers."""
    model: Any = embedder.model
    config = model.config
    width, head_width = config.hidden_size, config.hidden_size // config.num_attention_heads
    state: dict[str, torch.Tensor] = {
        "cls_token": model.embeddings.cls_token,
        "storage_tokens": model.embeddings.register_tokens,
        "mask_token": model.embeddings.mask_token[0],
        "rope_embed.periods": config.rope_theta ** (2 * torch.arange(head_width // 4) / (head_width // 2)),
    }
    mask = torch.ones(3, width)
    mask[1] = 0
    for i, layer in enumerate(model.model.layer):
        attention, mlp = layer.attention, layer.mlp
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        block = {
            "ls1.gamma": layer.layer_scale1.lambda1,
            "ls2.gamma": layer.layer_scale2.lambda1,
            "attn.qkv.weight": torch.cat([part.weight for part in projections]),
        }
        if config.query_bias:
            masked = torch.randn(width)  # whatever it is
            biases = [masked if part.bias is None else part.bias for part in projections]
            block |= {"attn.qkv.bias": torch.cat(biases), "attn.qkv.bias_mask": mask.flatten()}
        inner = (
            {"w1": mlp.gate_proj, "w2": mlp.up_proj, "w3": mlp.down_proj}
            if config.use_gated_mlp
            else {"fc1": mlp.up_proj, "fc2": mlp.down_proj}
        )
        modules = {"norm1": layer.norm1, "norm2": layer.norm2, "attn.proj": attention.o_proj}
        modules |= {f"mlp.{name}": module for name, module in inner.items()}
        for name, module in modules.items():
            block |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = getattr(model.norm, kind)
        state[f"local_cls_norm.{kind}"] = torch.randn(width)
        state[f"patch_embed.proj.{kind}"] = getattr(model.embeddings.patch_embeddings, kind)
    return {name: tensor.detach().float().contiguous() for name, tensor in state.items()}


def openclip_state_dict(embedder: Embedder) -> dict[str, torch.Tensor]:
    """A state dict as OpenCLIP's: the image tower under ``visual.``, and pieces of a text tower."""
    model: Any = embedder.model
    vision = model.vision_model
    state: dict[str, torch.Tensor] = {
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "visual.proj": model.visual_projection.weight.T,
        "positional_embedding": torch.zeros(8, 16),
        "token_embedding.weight": torch.zeros(50, 16),
        "transformer.resblocks.0.attn.in_proj_weight": torch.zeros(48, 16),
        "ln_final.weight": torch.ones(16),
        "text_projection": torch.zeros(16, 4),
        "logit_scale": torch.tensor(4.6),
    }
    for i, layer in enumerate(vision.encoder.layers):
        attention = layer.self_attn
        block = {}
        for kind in ("weight", "bias"):
            query_key_value = [getattr(part, kind) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
            block |= {
                f"ln_1.{kind}": getattr(layer.layer_norm1, kind),
                f"attn.in_proj_{kind}": torch.cat(query_key_value),
                f"attn.out_proj.{kind}": getattr(attention.out_proj, kind),
                f"ln_2.{kind}": getattr(layer.layer_norm2, kind),
                f"mlp.c_fc.{kind}": getattr(layer.mlp.fc1, kind),
                f"mlp.c_proj.{kind}": getattr(layer.mlp.fc2, kind),
            }
        state |= {f"visual.transformer.resblocks.{i}.{name}": tensor for name, tensor in block.items()}
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = getattr(vision.pre_layrnorm, kind)
        state[f"visual.ln_post.{kind}"] = getattr(vision.post_layernorm, kind)
    return {name: tensor.detach().float().contiguous() for name, tensor in state.items()}


def openai_state_dict(embedder: Embedder) -> dict[str, torch.Tensor]:
    """OpenAI's state dict: OpenCLIP's names, matrices in half precision, and three numbers."""
    model: Any = embedder.model
    state = {
        name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in openclip_state_dict(embedder).items()
    }
    return state | {
        "input_resolution": torch.tensor(model.config.image_size),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
