"""`python -m tests.fuzz [FORMAT ...] [--times N] [--seed S] [--first N]`: what the tests do in small, at length."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]


def main() -> None:
    """Fuzz the formats that are named, or all."""
    from fuzzing import Target, fuzz

    modules = [importlib.import_module(path.stem) for path in sorted(HERE.glob("targets_*.py"))]
    targets: dict[str, Target] = {target.name: target for module in modules for target in module.TARGETS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(targets)}")
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file: a fault's, to see it again")
    options = parser.parse_args()
    if unknown := set(options.formats) - set(targets):
        parser.error(f"no such format: {', '.join(sorted(unknown))}")
    for name in options.formats or targets:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        outcome = fuzz(targets[name], folder, times=options.times, seed=options.seed, first=options.first)
        print(f"{name}: {options.times} files, {outcome.taken} taken, {outcome.refused.total()} refused")


if __name__ == "__main__":
    main()
