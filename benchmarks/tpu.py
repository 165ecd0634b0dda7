"""What a TPU would do, by its compiler, without a TPU: ``python -m benchmarks.tpu``.

Of one transformer block in the middle of an encoder, on the way back for all rows of one image's Jacobian: matrix
products, and bytes between the chip and its memory. XLA's own count of bytes takes what stays on the chip for moved,
and what is copied there and back for moved twice more; `memory_traffic` reads the program instead.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.places import RESULTS
from benchmarks.program_text import arrays, instructions
from jepa_jax import provenance
from jepa_jax.costs.planning import plan_scoring
from jepa_jax.costs.target import collectives, target_memory, target_mesh
from jepa_jax.encoders import find_spec
from jepa_jax.encoders.vit import transformer_block
from jepa_jax.layers import SCHEDULES
from jepa_jax.numerics.compiler import compiler_options
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.products import Kernels, Products
from jepa_jax.scoring.options import ScoreOptions

MODELS = ("dinov2-small", "dinov2-base", "dinov2-large", "ijepa-vith14-1k")
TARGETS = ("v5e:2x2", "v6e:2x2")
LEVELS: tuple[Precision, ...] = ("bfloat16", "bfloat16_3x")


def memory_traffic(program: str) -> int:
    """Bytes that a compiled TPU program moves between the chip and its memory, loops not counted.

    Every instruction of the program reads its operands and writes its results once; what stands in the chip's own
    memory, space ``S(1)``, costs nothing. An asynchronous copy is counted where it starts.
    """
    moved = 0
    for each in instructions(program):
        if each.kind.endswith("-done"):
            continue
        if each.kind.endswith("-start"):
            copies = [(size, on_chip) for size, on_chip in _arrays(each.result) if size > 64][:2]
            smallest = min((size for size, _ in copies), default=0)
            moved += sum(smallest for _, on_chip in copies if not on_chip)
            continue
        for text in (each.result, *each.operands):
            moved += sum(size for size, on_chip in _arrays(text) if not on_chip)
    return moved


def _arrays(text: str) -> list[tuple[int, bool]]:
    """Bytes of each array of a type, and whether it stands on the chip."""
    return [(size, "S(1)" in layout) for size, layout in arrays(text)]


@dataclass(frozen=True)
class BlockRow:
    """One block of an encoder at 224 pixels, one image, on one chip; of several in a row the second and third."""

    model: str
    target: str
    precision: Precision
    kernels: Kernels
    gigabytes: float
    xla_gigabytes: float
    compile_seconds: float


def measure_block(model: str, target: str, precision: Precision, kernels: Kernels) -> BlockRow:
    """Compile one block and three, and take the difference: what surrounds them falls out."""
    begun = time.perf_counter()
    one, three = (_compiled_blocks(model, target, precision, kernels, count) for count in (1, 3))
    seconds = time.perf_counter() - begun

    def of_one(count: Callable[[Any], float]) -> float:
        return (count(three) - count(one)) / 2 / 1e9

    by_xla = of_one(lambda compiled: compiled.cost_analysis()["bytes accessed"])
    moved = of_one(lambda compiled: memory_traffic(compiled.as_text()))
    return BlockRow(model, target, precision, kernels, moved, by_xla, seconds)


def _compiled_blocks(model: str, target: str, precision: Precision, kernels: Kernels, count: int) -> Any:
    spec = find_spec(model).at_image_size(224).vit
    tokens = spec.prefix_tokens + (224 // spec.patch_size) ** 2
    one_chip = Mesh(target_mesh(target).devices[:1, 0], ("data",))
    graph, state = nnx.split(nnx.eval_shape(lambda: transformer_block(spec, nnx.Rngs(0))))
    products, schedule = Products(precision, "tpu", kernels), SCHEDULES["batched"]

    def placed(tree: Any) -> Any:
        sharding = NamedSharding(one_chip, P())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    def linearized(state: Any, x: jax.Array) -> Any:
        return nnx.merge(graph, state).linearize(x)[1]

    of_block = jax.eval_shape(lambda state: nnx.merge(graph, state).prepare(products), state)
    residuals = jax.eval_shape(linearized, state, jax.ShapeDtypeStruct((tokens, spec.width), jnp.float32))
    rows = jax.ShapeDtypeStruct((tokens, spec.width, spec.width), jnp.float32)
    cotangent = jax.eval_shape(products.stored, rows)

    def blocks(state: Any, of_block: Any, residuals: Any, cotangent: jax.Array) -> jax.Array:
        block = nnx.merge(graph, state)
        for _ in range(count):
            cotangent = block.pullback(of_block, residuals, cotangent, products, schedule)
        return cotangent

    arguments = placed((state, of_block, residuals, cotangent))
    lowered = jax.jit(blocks).trace(*arguments).lower(lowering_platforms=("tpu",))
    return lowered.compile(compiler_options("tpu"))


def measure_scoring(model: str, target: str, precision: Precision, images: int = 1) -> dict[str, Any]:
    """The whole scoring step of some images a chip: on all of a target such as ``v5e:4x4``, or on one, ``v5e``."""
    chip, _, layout = target.partition(":")
    mesh = target_mesh(f"{chip}:{layout or '2x2'}")
    mesh = mesh if layout else Mesh(mesh.devices[:1], mesh.axis_names)
    options = ScoreOptions(
        precision, mesh=mesh, memory=target_memory(f"{chip}:"), spectrum=False, images_per_step=images
    )
    planned = plan_scoring(find_spec(model), images * mesh.devices.size, options, compiled=True)
    program, estimate = planned.program, planned.memory
    assert program is not None
    assert estimate is not None
    return {
        "model": model,
        "target": target,
        "chips": mesh.devices.size,
        "precision": precision,
        "images_a_chip": images,
        "compile_seconds": program.compile_seconds,
        "peak_gibibytes": program.peak_bytes / 2**30,
        "planned_gibibytes": estimate.total / 2**30,
        "among_devices": collectives(program.text() or ""),
    }


def main() -> None:
    """Compile, and write after each program what is known so far."""
    parser = argparse.ArgumentParser(description="Ask the TPU's compiler.")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--scoring", nargs="*", default=(), help="models whose whole scoring step is compiled too")
    parser.add_argument("--chips", nargs="+", default=("v5e", "v6e", "v5e:4x4"), help="one of a kind, or a mesh")
    parser.add_argument("--levels", nargs="+", default=LEVELS, help="of the whole step")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    facts = provenance.describe()
    output = arguments.output or RESULTS / f"tpu-compiled-{facts['date']}"
    output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"facts": facts, "blocks": [], "scoring": []}
    if (before := output / "results.json").is_file():
        results = json.loads(before.read_text())  # what an earlier run has compiled, with the facts of that

    def record() -> None:
        (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (output / "README.md").write_text(table(results))

    for model in arguments.models:
        for target in arguments.targets:
            for precision in LEVELS:
                for kernels in ("off", "auto") if precision == "bfloat16" else ("auto",):
                    results["blocks"].append(asdict(measure_block(model, target, precision, kernels)))
                    print(results["blocks"][-1], flush=True)
                    record()
    for precision in arguments.levels:
        for target in arguments.chips:
            for model in arguments.scoring:
                measured = measure_scoring(model, target, precision)
                results["scoring"].append(measured | {"commit": facts["commit"]})
                print(results["scoring"][-1], flush=True)
                record()


def table(results: dict[str, Any]) -> str:
    """As Markdown."""
    facts = results["facts"]
    lines = [
        "# What the TPU's compiler makes of it",
        "",
        f"Compiled without a TPU, jax {facts['jax']}, commit {facts['commit']}, {facts['date']}.",
        "",
        "One block on the way back, all rows of one image at 224 pixels, one chip: bytes between it and its memory.",
        "Kernels: `auto` uses ours where there is one: bfloat16, heads that fill registers of 128 lanes together.",
        "",
        "| encoder | chip | precision | kernels | GB moved | by XLA's own count | s to compile |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["blocks"]:
        moved = f"{row['gigabytes']:.2f} | {row['xla_gigabytes']:.2f} | {row['compile_seconds']:.0f}"
        lines.append(f"| {row['model']} | {row['target']} | {row['precision']} | {row['kernels']} | {moved} |")
    if results["scoring"]:
        lines += [
            "",
            "The whole step, score alone, one image a chip:",
            "",
            "| encoder | chips | precision | GiB a chip | planned | among chips | s to compile |",
            "|---|---|---|---|---|---|---|",
        ]
    for row in results["scoring"]:
        sizes = f"{row['peak_gibibytes']:.2f} | {row['planned_gibibytes']:.2f}"
        chips, sent = f"{row['chips']} {row['target'].partition(':')[0]}", ", ".join(row["among_devices"]) or "nothing"
        lines.append(
            f"| {row['model']} | {chips} | {row['precision']} | {sizes} | {sent} | {row['compile_seconds']:.0f} |"
        )
    if note := results.get("note"):
        lines += ["", note]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
