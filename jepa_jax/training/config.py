"""What a training run is, as frozen data, in Python files that state their cost, their result and the command."""

from __future__ import annotations

import dataclasses
import runpy
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import optax
import optax.contrib

from jepa_jax.encoders import EncoderSpec
from jepa_jax.errors import ArgumentError
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.masked_prediction import MaskedPrediction
from jepa_jax.training.mlp import MLP

Start = Literal["random", "mimetic"]


@dataclass(frozen=True)
class Optimizer:
    """AdamW, or Muon for matrices beside it; warm-up, a plateau, and a linear decay to zero.

    The plateau does not know where the run ends: until the decay begins, runs that differ in ``steps`` are equal,
    and a run can be lengthened or ended early by resuming it with another number.

    Attributes:
        kind: ``adamw``, or ``muon`` (Jordan et al. 2024), which orthogonalises the updates of matrices and
            needs far fewer steps for a transformer.
        learning_rate: on the plateau.
        weight_decay: decoupled.
        warmup_steps, decay_steps: lengths of the two ramps.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 20
    decay_steps: int = 100

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a run of so many steps."""
        ramps = [
            optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps),
            optax.constant_schedule(self.learning_rate),
            optax.linear_schedule(self.learning_rate, 0.0, self.decay_steps),
        ]
        schedule = optax.join_schedules(ramps, [self.warmup_steps, max(self.warmup_steps, steps - self.decay_steps)])
        if self.kind == "muon":
            # consistent_rms: updates of the size that Adam's have, so that one learning rate serves both.
            return optax.contrib.muon(schedule, weight_decay=self.weight_decay, consistent_rms=0.2)
        return optax.adamw(schedule, b2=0.98, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class TrainingConfig:
    """One run: together with the examples, all that decides its result.

    Attributes:
        name: of the encoder that comes out.
        encoder: its architecture: a ViT with its preprocessing, or an MLP for vectors.
        objective: what is minimised, views included.
        optimizer: how.
        start: the parameters before the first step; see `mimetic`.
        steps: how long.
        batch_size: examples per step; each gives several views.
        seed: of the start, the order of examples, and every random draw.
        bfloat16_products: see `products`; sums and parameters stay in float32.
        log_every, checkpoint_every: steps between two lines of metrics, and between two checkpoints.
    """

    name: str
    encoder: EncoderSpec | MLP
    objective: JointEmbedding | MaskedPrediction
    optimizer: Optimizer = field(default_factory=Optimizer)
    start: Start = "random"
    steps: int = 1000
    batch_size: int = 256
    seed: int = 0
    bfloat16_products: bool = False
    log_every: int = 10
    checkpoint_every: int = 100

    def __post_init__(self):
        for name in ("steps", "batch_size", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.start == "mimetic" and not isinstance(self.encoder, EncoderSpec):
            raise ArgumentError("start='mimetic' is for vision transformers, not for an MLP.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return dataclasses.asdict(self) | {"objective": _named(self.objective)}


def _named(value: Any) -> Any:
    """A dataclass as a dict that tells its class."""
    if isinstance(value, tuple):
        return [_named(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: _named(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {"kind": type(value).__name__} | fields


def load_config(source: str | Path) -> TrainingConfig:
    """The ``CONFIG`` of a Python file, or of a shipped one by its name, such as ``jepa-tiny``.

    The file is executed: load only what you would run.

    Raises:
        ArgumentError: there is no such config, the file fails, or it defines none.
    """
    path = Path(source)
    if not path.is_file():
        shipped = resources.files("jepa_jax.training") / "configs"
        named = shipped / f"{str(source).replace('-', '_')}.py"
        if not named.is_file():
            files = sorted(
                file.name for file in shipped.iterdir() if file.name.endswith(".py") and file.name[0] != "_"
            )
            names = [name.removesuffix(".py").replace("_", "-") for name in files]
            raise ArgumentError(f"config {source!r} is neither a Python file nor one of {', '.join(names)}.")
        with resources.as_file(named) as file:
            path = file
    try:
        config = runpy.run_path(str(path)).get("CONFIG")
    except Exception as error:  # whatever a user's file raises
        raise ArgumentError(f"config {path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainingConfig):
        raise ArgumentError(f"config {path} does not define CONFIG = TrainingConfig(...).")
    return config
