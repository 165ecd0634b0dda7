"""`python -m tests.kill [--pairs N] [--times N] [--amortised] [--seed S]`: what the tests do in small, at length.

--pairs: so many pairs of jobs that begin in one empty directory. --times: so many kills at random moments, of jobs of
one to three processes; and as many, each at another change that a job makes to its directory, until there are no more.
--amortised: of jobs that predict most scores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]


def main() -> None:
    """Do what is asked for; an AssertionError says what was lost or doubled."""
    from job_kills import AMORTISED, SMALL, ScriptedKills, kill_at_random
    from job_pairs import Pairs
    from jobs_shared import tiny_encoder

    from jepa_jax.encoders import save_encoder

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--times", type=int, default=0)
    parser.add_argument("--amortised", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.pairs and not options.times:
        parser.error("give --pairs or --times")
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        if options.pairs:
            with Pairs(folder / "pairs", options.seed) as pairs:
                for number in range(options.pairs):
                    print(f"{number}: {pairs.try_pair(number, *pairs.drawn(number))}", flush=True)
            print(f"{options.pairs} pairs: never a table of two, never a job without its rows.")
        if options.times:
            cache = {
                "JAX_COMPILATION_CACHE_DIR": f"{name}/compiled",
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            }
            scripted = 0
            job, records = (AMORTISED, 100) if options.amortised else (SMALL, 12)
            with ScriptedKills(folder / "scripted", job, records, cache) as kills:
                while scripted < options.times and kills.kill_at(scripted + 1):
                    scripted += 1
                    print(f"killed at change {scripted}, and went on", flush=True)
            save_encoder(tiny_encoder(), folder / "model")
            more = ("--method", "amortised", "--exact-sample", "300", "--escalate", "0.1") if options.amortised else ()
            random = kill_at_random(
                folder / "random", folder / "model", cache, times=options.times, seed=options.seed, options=more
            )
            print(f"{random} random and {scripted} scripted kills: nothing lost, nothing doubled, the scores equal.")


if __name__ == "__main__":
    main()
