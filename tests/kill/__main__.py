"""`python -m tests.kill [--pairs N] [--times N] [--seed S]`: what the tests of jobs do in small, at length.

--pairs: so many pairs of jobs that begin in one empty directory; --times: so many kills of one job, at random moments
and at every change that it makes to its directory.
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
    from job_pairs import Pairs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--times", type=int, default=0)
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


if __name__ == "__main__":
    main()
