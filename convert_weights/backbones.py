"""Fine-tuned models: the encoder in them under the name of its architecture, and a head beside it.

`transformers` saves such a model with ``dinov2.`` or ``ijepa.`` before the encoder's names; ``AutoModel`` then loads
the encoder, and names what it left out. So does this.

Since release 5 the names in memory are not those in files any more: a state dict that was saved by itself has the
former.
"""

from __future__ import annotations

import re
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


IN_MEMORY = {
    "dinov2": (
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
    ),
    "dinov3": ((r"^model\.layer\.", "layer."),),
    "ijepa": (
        (r"\blayers\.(\d+)\.attention\.q_proj\.", r"encoder.layer.\1.attention.attention.query."),
        (r"\blayers\.(\d+)\.attention\.k_proj\.", r"encoder.layer.\1.attention.attention.key."),
        (r"\blayers\.(\d+)\.attention\.v_proj\.", r"encoder.layer.\1.attention.attention.value."),
        (r"\blayers\.(\d+)\.attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
        (r"\blayers\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
        (r"\blayers\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
        (r"\blayers\.(\d+)\.", r"encoder.layer.\1."),
    ),
    "vjepa2": (),
    "clip": (),
    "siglip": ((r"^vision_model\.", ""),),
}
"""By family: what stands for what in names, in memory and in files."""


def with_file_names(reader: TensorReader, family: str) -> TensorReader:
    """A source with the names that `transformers` writes, where it has those of memory."""
    renamed: dict[str, str] = {}
    for name in reader.names():
        in_file = name
        for pattern, replacement in IN_MEMORY[family]:
            in_file = re.sub(pattern, replacement, in_file)
        renamed.setdefault(in_file, name)
    unchanged = all(name == theirs for name, theirs in renamed.items())
    # Two names that would become one are left as they are: neither is known then.
    return reader if unchanged or len(renamed) != len(list(reader.names())) else Renamed(reader, renamed)


def _whole(config: Config) -> str:
    architectures = config.get("architectures")
    if isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str):
        return architectures[0] if architectures[0].isidentifier() else shown(architectures[0])
    return "a model that was fine-tuned"
