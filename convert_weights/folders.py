"""Which files of a folder or a hub repository are read: one table for both, in the order of those who wrote them.

| described by            | weights, the first that is there                                  | as in          |
|-------------------------|-------------------------------------------------------------------|----------------|
| `config.json`           | what its `transformers_weights` names                             | transformers 5 |
|                         | `model.safetensors`                                               |                |
|                         | `model.safetensors.index.json`, and the shards that it names      |                |
|                         | `pytorch_model.bin`                                               |                |
|                         | `pytorch_model.bin.index.json`, and the shards that it names      |                |
| `open_clip_config.json` | `open_clip_model.safetensors`                                     | OpenCLIP       |
|                         | `open_clip_pytorch_model.bin`                                     |                |
| `config.json` of timm   | `model.safetensors`, `pytorch_model.bin`                          | timm           |

Where both descriptions are there, `config.json` counts. A folder is searched as it lies; of a repository each file is
fetched when the table comes to it, so that nothing is fetched that is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from convert_weights.config import Config, read_json, shown
from convert_weights.processors import PROCESSOR_FILES
from convert_weights.video_processors import VIDEO_FILE
from jepa_jax.errors import CheckpointError

CONFIG = "config.json"
OPENCLIP_CONFIG = "open_clip_config.json"
ADAPTER_CONFIG = "adapter_config.json"
INDEX_SUFFIX = ".index.json"

TRANSFORMERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
OPENCLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

DESCRIPTIONS = (
    CONFIG,
    OPENCLIP_CONFIG,
    ADAPTER_CONFIG,
    *PROCESSOR_FILES,
    VIDEO_FILE,
    *(name for name in TRANSFORMERS if name.endswith(INDEX_SUFFIX)),
)
"""Small files: everything that may describe weights."""

WeightFiles = Mapping[Path, frozenset[str] | None]
"""Files to the tensors that an index says are in each; None without an index."""

Fetch = Callable[[Sequence[str]], Any]
"""Brings files of these names into the folder, those that exist."""


def _lies_there(names: Sequence[str]) -> None:
    """A folder on disk has what it has."""
    del names


def weight_files(folder: Path, fetch: Fetch = _lies_there) -> WeightFiles:
    """The files of weights that the table chooses.

    Args:
        folder: where the descriptions lie, and the weights will.
        fetch: called with the names that the table comes to.

    Raises:
        CheckpointError: there are none, or an index is damaged or names what is not there.
    """
    described_by = description(folder)
    names = TRANSFORMERS if described_by == CONFIG else OPENCLIP
    if described_by == CONFIG and "transformers_weights" in (config := Config.read(folder / CONFIG)):
        told = config.text("transformers_weights")
        _check_inside(folder / CONFIG, told)
        names = (told,)
    for name in names:
        fetch([name])
        if not (folder / name).is_file():
            continue
        if name.endswith(INDEX_SUFFIX):
            return _shards(folder, name, fetch)
        return {folder / name: None}
    raise CheckpointError(f"{folder} has no {', no '.join(names)}: {_advice(folder)}")


def description(folder: Path) -> str:
    """The name of the file by which a folder describes itself.

    Raises:
        CheckpointError: there is none, or what it describes is not the whole.
    """
    if (folder / ADAPTER_CONFIG).exists():
        raise CheckpointError(
            f"{folder} has an {ADAPTER_CONFIG}: an adapter belongs to these weights. Merge it first "
            "(merge_and_unload of peft), and save the whole model to a folder of its own."
        )
    for name in (CONFIG, OPENCLIP_CONFIG):
        if (folder / name).exists():
            return name
    raise CheckpointError(
        f"{folder} has no {CONFIG}: it is no Hugging Face model folder; nor has it an {OPENCLIP_CONFIG}."
    )


def _shards(folder: Path, index_name: str, fetch: Fetch) -> WeightFiles:
    index = folder / index_name
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} is not an index of shards (no weight_map); download it again.")
    named: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise CheckpointError(f"{index} names {shown(shard)} as a shard, expected a file's name.")
        named.setdefault(shard, set()).add(tensor)
    for shard in named:
        _check_inside(index, shard)
    fetch(sorted(named))
    absent = sorted(shard for shard in named if not (folder / shard).is_file())
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise CheckpointError(f"{folder} lacks {', '.join(absent[:3])}{more}, which its index names; download them.")
    return {folder / shard: frozenset(tensors) for shard, tensors in named.items()}


def _check_inside(described_by: Path, name: str) -> None:
    """Refuse a name that leads out of the folder, whichever system's it is, and one that is no file of weights."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable()
    if outside or len(name) > 255:
        raise CheckpointError(f"{described_by} names {shown(name)}, which is no file in its folder.")
    if not name.endswith((".safetensors", ".bin", f".safetensors{INDEX_SUFFIX}")):
        raise CheckpointError(f"{described_by} names {shown(name)}, expected a .safetensors or .bin file.")


def _advice(folder: Path) -> str:
    """What can be done about weights that are not there."""
    variants = sorted(
        path.name
        for pattern in ("model.*.safetensors", "pytorch_model.*.bin")
        for path in folder.glob(pattern)
        if not path.name.endswith(INDEX_SUFFIX)
    )
    if variants:
        name = "model.safetensors" if variants[0].endswith(".safetensors") else "pytorch_model.bin"
        return (
            f"it has a variant alone ({', '.join(variants[:3])}), which transformers takes only when it is told; "
            f"copy it to {name} if it is the one that is meant, or download the others."
        )
    return "download the weights."
