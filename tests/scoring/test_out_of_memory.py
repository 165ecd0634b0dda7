"""A device that really runs out of memory: the work is halved, said, finished, and remembered.

In a process whose address space is limited: XLA takes what a program needs as one piece, which the system then
refuses. The sizes leave half a GiB between what fits and what does not, so that nothing smaller fails.
"""

import json
import os
import subprocess
import sys
import textwrap

import jax
import pytest

import jepa_jax as jj
from jepa_jax.scoring.programs import placing

PROGRAM = """
    import json, pathlib, resource, time
    import jax, jax.numpy as jnp, numpy as np
    import jepa_jax as jj

    WIDE = 2**18

    def fn(x):  # each row's pullback takes 64 MiB: 64 rows 4 GiB, 32 rows 2 GiB, 16 rows 1 GiB
        repeated = jax.lax.optimization_barrier(jnp.repeat(x, WIDE, axis=1).reshape(-1, 64, WIDE))  # is not fused away
        return jnp.sum(jnp.sin(repeated) * jnp.linspace(1, 2, WIDE), axis=-1)

    batch = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    one = batch[:1]
    expected = float(jj.score(fn, one, mode="reverse", block_size=4).score[0])

    def address_space():
        line = next(line for line in pathlib.Path("/proc/self/status").open() if line.startswith("VmSize"))
        return int(line.split()[1]) * 1024

    limit = address_space() + 3 * 2**29
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    said = []
    scorer = jj.Scorer(fn, mode="reverse", block_size=64, report=said.append)
    planned = scorer.program(one).peak_bytes
    found = float(scorer(one).score[0])
    program, first = scorer.program(one), list(said)
    while limit - address_space() < program.peak_bytes + 2**27:
        time.sleep(0.01)  # XLA gives back what a program took a moment after its result is there
    scorer(one)
    print(json.dumps({
        "planned": planned, "expected": expected, "found": found, "first": first, "later": said[len(first):],
        "rows": program.plan.block_size, "peak": program.peak_bytes, "again": program is scorer.program(one),
        "rows_of_two": scorer.program(batch).plan.block_size,
    }))
"""


def run_limited() -> dict:
    settings = os.environ | {"MALLOC_ARENA_MAX": "1"}  # threads' heaps reserve address space that nobody uses
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited and read as on Linux")
def test_a_full_device_is_survived():
    run = run_limited()
    assert run["planned"] > 2**32
    sizes = [(64, 32), (32, 16)]
    assert run["first"] == [
        f"{full} rows of 1 image(s) at a time do not fit into memory; going on with {half} rows of 1 image(s)."
        for full, half in sizes
    ]
    assert (run["later"], run["rows"], run["again"]) == ([], 16, True)
    assert run["rows_of_two"] == 64  # of another shape nothing is known yet
    assert run["peak"] < 3 * 2**29 < run["planned"] / 2
    assert abs(run["found"] - run["expected"]) <= 1e-4


def test_what_does_not_fit_by_itself_is_named():
    with pytest.raises(jj.OutOfMemoryError, match="the encoder x alone does not fit"), placing("the encoder x"):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"), placing("the encoder x"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
