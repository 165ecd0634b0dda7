"""A contestant in a process of its own that takes turns with the others: it waits for a line, and scores one batch.

The number of XLA's CPU devices is fixed at a process's start, so that several devices need another process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import ROOT
from benchmarks.processes import ProcessFailed, devices_environment

GO = "go\n"


class TurnTaker:
    """The other process, seen from this one.

    Args:
        weights: folder that `jepa_jax.load_encoder` reads.
        images: ``.npy`` file, [B, H, W, 3].
        image_size: their side, pixels.
        devices: XLA devices that it sees.
        options: of `jepa_jax.Scorer`.
    """

    def __init__(self, weights: Path, images: Path, image_size: int, *, devices: int, options: dict[str, Any]):
        command = [sys.executable, "-m", "benchmarks.turns", str(weights), str(images), str(image_size)]
        self._process = subprocess.Popen(
            [*command, json.dumps(options)],
            cwd=ROOT,
            env=os.environ | devices_environment(devices),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def compile_seconds(self) -> float:
        """Wait until it has compiled."""
        return self._answer()["compile_seconds"]

    def turn(self) -> dict[str, Any]:
        """Let it score its batch; what it found for the first image."""
        assert self._process.stdin is not None
        self._process.stdin.write(GO)
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ProcessFailed(f"the process with several devices ended with status {self._process.wait()}")
        return json.loads(line)


def main() -> None:
    """Be that process."""
    import jax
    from jax.sharding import AxisType

    import jepa_jax as jj

    parser = argparse.ArgumentParser(description="Take turns in a race, from another process.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("image_size", type=int)
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    images = np.load(arguments.images)
    mesh = jax.make_mesh(
        (jax.device_count(), 1), ("data", "rows"), axis_types=(AxisType.Auto, AxisType.Auto)
    )  # images shared among devices, rows not
    encoder = jj.load_encoder(arguments.weights, image_size=arguments.image_size)
    scorer = jj.Scorer(encoder, mesh=mesh, **arguments.options)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    scorer.params = jax.device_put(scorer.params, everywhere)
    print(json.dumps({"compile_seconds": scorer.program(images).compile_seconds}), flush=True)
    for line in sys.stdin:
        if line != GO:
            break
        result = scorer(images)
        found = {name: float(getattr(result, name)[0]) for name in ("score", "listing_score", "score_error")}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
