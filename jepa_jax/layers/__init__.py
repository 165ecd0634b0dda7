"""One file a layer: forward, what the way back needs, the way back for many rows at once, and what both cost."""

from jepa_jax.layers.attention import Attention as Attention
from jepa_jax.layers.attention_pool import AttentionPool as AttentionPool
from jepa_jax.layers.block import Block as Block
from jepa_jax.layers.exits import Exit as Exit
from jepa_jax.layers.head import L2Normalize as L2Normalize
from jepa_jax.layers.head import Projection as Projection
from jepa_jax.layers.layer import Cost as Cost
from jepa_jax.layers.layer import EntryLayer as EntryLayer
from jepa_jax.layers.layer import Layer as Layer
from jepa_jax.layers.layer import NullDirections as NullDirections
from jepa_jax.layers.layer import Sizes as Sizes
from jepa_jax.layers.layer_norm import LayerNorm as LayerNorm
from jepa_jax.layers.mlp import MLP as MLP
from jepa_jax.layers.mlp import SwiGLU as SwiGLU
from jepa_jax.layers.patches import PatchEmbedding as PatchEmbedding
from jepa_jax.layers.pooling import ClassToken as ClassToken
from jepa_jax.layers.pooling import MeanPatches as MeanPatches
from jepa_jax.layers.pooling import Pooling as Pooling
from jepa_jax.layers.positions import Positions as Positions
from jepa_jax.layers.rotary import AxialRotary as AxialRotary
from jepa_jax.layers.rotary import RotaryAttention as RotaryAttention
from jepa_jax.layers.schedule import SCHEDULES as SCHEDULES
from jepa_jax.layers.schedule import Schedule as Schedule
from jepa_jax.layers.stack import Stack as Stack
from jepa_jax.layers.tubelet_rotary import TubeletRotary as TubeletRotary
from jepa_jax.layers.tubelets import TubeletEmbedding as TubeletEmbedding
