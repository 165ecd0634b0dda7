"""Measure everything on this machine: ``python -m benchmarks.run --suite cpu|gpu|smoke``.

Stages run one after the other. After each, all results so far are written to ``results.json``, as tables to
``README.md`` and as plots, in a directory of its own below ``benchmarks/results/``. A stage that fails or runs past
its limit is recorded with the reason, and the exit status tells.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.places import RESULTS, ROOT
from benchmarks.plots import write_plots
from benchmarks.suites import SUITES, Stage, find_stage
from benchmarks.tables import write_tables
from jepa_jax import provenance

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's worries about programs in its own cache
}


def main() -> None:
    """Run a suite."""
    parser = argparse.ArgumentParser(description="Measure everything on this machine.")
    parser.add_argument("--suite", choices=SUITES, default="cpu")
    parser.add_argument("--part", type=int, help="of a suite that is run in several calls; by default all")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="some stages; others' earlier results are kept")
    parser.add_argument("--output", type=Path, help="directory of the results")
    arguments = parser.parse_args()
    suite = SUITES[arguments.suite]
    names = [stage.name for stage in suite.stages]
    if unknown := set(arguments.only or ()) - set(names):
        parser.error(f"unknown stages {sorted(unknown)}; choose from {', '.join(names)}")
    chosen = [
        stage
        for stage in suite.stages
        if (arguments.only is None or stage.name in arguments.only) and arguments.part in (None, stage.part)
    ]
    os.environ.update(QUIET | dict(suite.environment))  # before JAX looks for devices
    own = suite.own_processes
    facts = processes.call("jepa_jax.provenance:describe", {}) if own else provenance.describe()
    output = (arguments.output or default_output(arguments.suite, facts)).resolve()
    results = run_suite(arguments.suite, chosen, facts, output, own_processes=own)
    failed = [name for name, outcome in results["stages"].items() if outcome["status"] != "done"]
    print(f"{output}: {len(results['stages'])} stages" + (f", of which failed: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


def default_output(suite: str, facts: dict[str, Any]) -> Path:
    """``benchmarks/results/DEVICE-DATE``; of the smoke suite nothing is kept there."""
    if suite == "smoke":
        return ROOT / "build" / "benchmarks"
    device = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    return RESULTS / f"{device}-{facts['date']}"


def run_suite(
    suite: str, stages: list[Stage], facts: dict[str, Any], output: Path, *, own_processes: bool
) -> dict[str, Any]:
    """Run stages and write the results after each; what an earlier run left there of other stages is kept."""
    path = output / "results.json"
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    kept = earlier["stages"] if earlier.get("suite") == suite else {}
    output.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        print(f"{stage.name}", flush=True)
        outcome = run_in_its_own_process(suite, stage) if own_processes else run_here(stage)
        kept[stage.name] = outcome | {key: facts[key] for key in ("commit", "date")}
        said = f" ({outcome['reason']})" if outcome["reason"] else ""
        print(f"{stage.name}: {outcome['status']} in {outcome['seconds']:.0f} s{said}", flush=True)
        ordered = {known.name: kept[known.name] for known in SUITES[suite].stages if known.name in kept}
        results = {"suite": suite, "environment": facts, "stages": ordered}
        path.write_text(json.dumps(results, indent=1) + "\n")
        write_plots(results, output)
        write_tables(results, output)
    return json.loads(path.read_text())


def run_in_its_own_process(suite: str, stage: Stage) -> dict[str, Any]:
    """One stage in a fresh process, stopped at its limit; what it recorded until then is kept."""
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / "recorded.json"
        arguments = {"suite": suite, "name": stage.name, "recorded": str(recorded)}
        begun, load = time.monotonic(), os.getloadavg()[0]
        reason = None
        try:
            processes.call("benchmarks.run:run_stage", arguments, limit_seconds=stage.limit_seconds)
        except processes.ProcessFailed as error:
            reason = str(error)
        results = json.loads(recorded.read_text()) if recorded.is_file() else {}
        return _outcome(stage, results, reason, time.monotonic() - begun, load)


def run_stage(suite: str, name: str, recorded: str) -> None:
    """Be the process of a stage: its results go to a file, whole at any time."""
    path = Path(recorded)

    def record(results: dict[str, Any]) -> None:
        path.with_suffix(".new").write_text(json.dumps(results))
        path.with_suffix(".new").replace(path)

    record(find_stage(suite, name).settings.run(record))


def run_here(stage: Stage) -> dict[str, Any]:
    """One stage in this process, without a limit."""
    begun, load = time.monotonic(), os.getloadavg()[0]
    recorded: dict[str, Any] = {}
    reason = None
    try:
        recorded |= stage.settings.run(recorded.update)
    except Exception as error:  # the other stages go on
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    return _outcome(stage, recorded, reason, time.monotonic() - begun, load)


def _outcome(stage: Stage, results: dict[str, Any], reason: str | None, seconds: float, load: float) -> dict[str, Any]:
    settings: Any = stage.settings
    return {
        "status": "failed" if reason else "done",
        "reason": reason,
        "seconds": seconds,
        "load_average": load,
        "settings": dataclasses.asdict(settings),
        "results": results,
    }


if __name__ == "__main__":
    main()
