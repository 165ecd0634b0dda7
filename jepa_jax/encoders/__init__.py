"""Pretrained encoders: specs, one Flax vision transformer, null directions, checkpoints."""

from jepa_jax.encoders.checkpoint import is_checkpoint as is_checkpoint
from jepa_jax.encoders.checkpoint import restore_encoder as restore_encoder
from jepa_jax.encoders.checkpoint import save_encoder as save_encoder
from jepa_jax.encoders.encoder import Encoder as Encoder
from jepa_jax.encoders.function import EncoderFunction as EncoderFunction
from jepa_jax.encoders.registry import ENCODERS as ENCODERS
from jepa_jax.encoders.registry import find_spec as find_spec
from jepa_jax.encoders.shipped import SHIPPED as SHIPPED
from jepa_jax.encoders.shipped import load_shipped as load_shipped
from jepa_jax.encoders.specs import EncoderSpec as EncoderSpec
from jepa_jax.encoders.specs import ViTSpec as ViTSpec
from jepa_jax.encoders.vit import ViT as ViT
from jepa_jax.images.recipe import PreprocessSpec as PreprocessSpec
