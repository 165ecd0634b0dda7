"""The official files' formats, written by independent tables from models of `transformers` in memory.

The tables go by the official module names and those of the modules in memory, which are not those of the library's own
files: nothing is shared with the tables in convert_weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch_families import Embedder


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
