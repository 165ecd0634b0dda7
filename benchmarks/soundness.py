"""What `jepa-jax doctor` finds: on a device that nobody here has, the first thing to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jepa_jax.jacobian import check_backend
from jepa_jax.numerics.platforms import platform_of


@dataclass(frozen=True)
class Soundness:
    """Every check of the backend, kernels among them."""

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Check."""
        checks = check_backend(platform_of(jax.local_devices()))
        result = {"checks": [dataclasses.asdict(check) | {"passed": check.passed} for check in checks]}
        record(result)
        return result
