"""GPUs that are not here: XLA makes programs for a card by its description, with neither a card nor a driver.

It tries no products out there, so that a card may choose other ones; which arrays are written, read, turned and
copied, and what memory they take, is as on the card.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.experimental import topologies

from jepa_jax.errors import ArgumentError

CARD_MEMORY = {"h100": 80}
"""GiB of each card, as their maker states them."""

_DESCRIPTIONS = {
    "h100": """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
}
"""As JAX describes a card to its compiler."""


def cards(target: str) -> list[Any]:
    """Devices to compile for.

    Args:
        target: a card, or so many on one computer, such as ``h100`` or ``h100:8``.

    Raises:
        ArgumentError: the compiler is not installed, or the number is none.
    """
    name, _, number = target.partition(":")
    if number and not (number.isascii() and number.isdecimal() and int(number)):
        raise ArgumentError(f"target={target!r}: {number!r} is no number of cards; use one such as '{name}:8'.")
    jax.devices()  # finds what is installed
    try:
        topology = topologies.get_topology_desc(
            name, "cuda", target_config=_DESCRIPTIONS[name], topology=f"1x1x{number or 1}"
        )
    except NotImplementedError as error:  # so JAX says that it knows no such platform
        raise ArgumentError(f"target={target!r} needs XLA for CUDA: pip install 'jepa-jax[cuda]'.") from error
    return list(topology.devices)
