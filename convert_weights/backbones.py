"""Fine-tuned models: the encoder in them under the name of its architecture, and a head beside it.

`transformers` saves such a model with ``dinov2.`` or ``ijepa.`` before the encoder's names; ``AutoModel`` then loads
the encoder, and names what it left out. So does this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convert_weights.config import Config, shown
from convert_weights.readers import Renamed, TensorReader
from convert_weights.tables import Row


def bare_backbone(
    reader: TensorReader, rows: Sequence[Row], config: Config, model_type: str
) -> tuple[TensorReader, Mapping[str, str]]:
    """The encoder in a source by its own names, and the names of the head with the reason to leave it out.

    Args:
        reader: a model of its own, which is returned as it is, or one with a head.
        rows: the encoder's table.
        config: its ``config.json``, for the name of the whole model.
        model_type: the prefix of the encoder's names in a model with a head.
    """
    prefix = f"{model_type}."
    names = set(reader.names())
    inside = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    if not inside or any(name in names for row in rows for name in row.sources):
        return reader, {}
    head = names - set(inside.values())
    kept = {name: name for name in head} | inside
    return Renamed(reader, kept), dict.fromkeys(sorted(head - inside.keys()), f"the head of {_whole(config)}")


def _whole(config: Config) -> str:
    architectures = config.get("architectures")
    if isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str):
        return architectures[0] if architectures[0].isidentifier() else shown(architectures[0])
    return "a model that was fine-tuned"
