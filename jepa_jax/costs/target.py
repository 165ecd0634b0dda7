"""Devices that are not here: the real compiler makes programs for them, and says what these would take.

For TPUs it needs libtpu, which `pip install 'jepa-jax[tpu]'` brings, and neither a TPU nor a network; for GPUs see
`jepa_jax.costs.cards`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from jepa_jax.costs.cards import CARD_MEMORY, cards
from jepa_jax.errors import ArgumentError
from jepa_jax.scoring.meshes import AXES

CHIP_MEMORY = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
"""GiB of each chip, as their maker states them."""


KERNEL_CALLS = ("tpu_custom_call", "__gpu$xla.gpu.triton")
"""What kernels of our own are called in a compiled program."""


def target_mesh(target: str) -> Mesh:
    """The devices of a topology, sharing images.

    Args:
        target: chip and layout, such as ``v5e:2x2`` or ``v6e:4x4``, or a card and how many, ``h100:8``.

    Raises:
        ArgumentError: the compiler is not installed, or knows no such topology.
    """
    _memory_of(target)
    if target.partition(":")[0] in CARD_MEMORY:
        return Mesh(np.array(cards(target))[:, None], AXES)
    if importlib.util.find_spec("libtpu") is None:
        raise ArgumentError(f"target={target!r} needs the TPU's compiler: pip install 'jepa-jax[tpu]'.")
    # It would ask a cloud's metadata server what it runs on. Where JAX has asked already, it has written its
    # disappointment into the environment, for libtpu to stumble over.
    for name, value in list(os.environ.items()):
        if name.startswith("TPU_") and value.startswith("WARNING"):
            del os.environ[name]
    library = importlib.import_module("libtpu").get_library_path()
    quiet = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is held: others may ask the compiler at the same time
    }
    for name, value in {**quiet, "TPU_LIBRARY_PATH": library}.items():
        os.environ.setdefault(name, value)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=target).devices
    except Exception as error:  # whatever XLA raises
        raise ArgumentError(
            f"target={target!r} is no topology of its chips: {error}; use one such as 'v5e:2x2'."
        ) from error
    return Mesh(np.array(devices)[:, None], AXES)


def target_memory(target: str) -> int:
    """Bytes of one device that scoring may take: as `jepa_jax.scoring.memory.default_budget` has it, most of them."""
    return int(0.9 * _memory_of(target) * 2**30)


def _memory_of(target: str) -> int:
    chip = target.partition(":")[0]
    memory = CHIP_MEMORY | CARD_MEMORY
    if chip not in memory:
        raise ArgumentError(
            f"target={target!r}: {chip!r} is no TPU or GPU known here; use one of {', '.join(CHIP_MEMORY)} and a "
            f"layout, such as 'v5e:2x2', or {', '.join(CARD_MEMORY)} and how many, such as 'h100:8'."
        )
    return memory[chip]


def collectives(program: str) -> list[str]:
    """The kinds of communication among devices in a compiled program's text."""
    return [name for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if name in program]
