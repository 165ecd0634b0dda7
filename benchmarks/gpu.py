"""What a GPU would run, by its compiler, without a GPU: ``python -m benchmarks.gpu --model dinov2-small --images 8``.

XLA compiles the whole scoring step for an H100 (see `jepa_jax.costs.cards`; needs the extra ``cuda``). Printed are
the largest instructions of the program in their order, with the bytes that each reads and writes, and the sum of all;
programs of our own count once what they read several times, and twice what they write in place.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import jax

from benchmarks.program_text import Instruction, arrays, instructions
from jepa_jax.costs.planning import plan_scoring
from jepa_jax.costs.target import target_memory, target_mesh
from jepa_jax.encoders import find_spec
from jepa_jax.numerics.precision import LEVELS
from jepa_jax.scoring.options import ScoreOptions


def moved(instruction: Instruction) -> int:
    """Bytes that an instruction reads and writes; of a loop, none."""
    if instruction.kind in ("while", "conditional"):
        return 0
    return sum(size for text in (instruction.result, *instruction.operands) for size, _ in arrays(text))


def main() -> None:
    """Compile, and show."""
    parser = argparse.ArgumentParser(description="Ask the GPU's compiler.")
    parser.add_argument("--model", default="dinov2-small")
    parser.add_argument("--precision", choices=LEVELS, default="float16")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--kernels", choices=("auto", "off"), default="auto")
    parser.add_argument("--least", type=float, default=100, metavar="MB", help="what moves less is left out")
    parser.add_argument("--output", type=Path, help="file for the whole program")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    options = ScoreOptions(
        arguments.precision,
        mesh=target_mesh("h100"),
        memory=target_memory("h100"),
        spectrum=False,
        images_per_step=arguments.images,
        kernels=arguments.kernels,
    )
    planned = plan_scoring(find_spec(arguments.model), arguments.images, options, compiled=True)
    assert planned.program is not None
    assert planned.memory is not None
    text = planned.program.text() or ""
    if arguments.output:
        arguments.output.write_text(text)
    total = 0
    for each in instructions(text):
        total += moved(each)
        if moved(each) >= 1e6 * arguments.least:
            called = re.search(r'custom_call_target="([^"]*)"', each.line)
            origin = re.search(r'op_name="[^"]*?([^"/]*)"', each.line)
            kind, shape = called[1] if called else each.kind, each.result.partition("{")[0]
            print(f"{moved(each) / 1e6:9.0f} MB  {kind:32s} {shape:36s} {origin[1] if origin else ''}")
    peak, wanted = planned.program.peak_bytes / 2**30, planned.memory.total / 2**30
    seconds = planned.program.compile_seconds
    of_image = total / 1e9 / arguments.images
    print(f"{of_image:.1f} GB an image; memory {peak:.2f} GiB, planned {wanted:.2f}; compiled in {seconds:.0f} s")


if __name__ == "__main__":
    main()
