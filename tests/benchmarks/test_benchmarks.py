"""The smoke suite: every stage of the benchmarks at toy size, and nobody disagrees beyond what is stated."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import gpu, processes, run, tables
from benchmarks.places import ROOT
from benchmarks.program_text import instructions
from benchmarks.standings import disagreements, standings
from benchmarks.suites import SUITES, Stage
from benchmarks.tables import render
from jepa_jax.numerics.precision import LEVELS


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the smoke suite has written."""
    output = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "benchmarks.run", "--suite", "smoke", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output


@pytest.fixture(scope="module")
def stages(smoke: Path) -> dict[str, Any]:
    """Its results, stage by stage."""
    return {
        name: stage["results"] for name, stage in json.loads((smoke / "results.json").read_text())["stages"].items()
    }


def test_every_peer_and_every_rung_agrees_with_float64(stages: dict[str, Any]):
    race = stages["race-toy-28"]
    assert {row["contestant"]: row["absent"] for row in race["contestants"] if row["absent"]} == {}
    assert {row["way"] for row in race["contestants"]} == {
        *("listing", "vectorized listing", "jacrev", "compiled jacrev"),
        *("generic", "rules"),
    }
    assert {row["precision"] for row in race["contestants"]} == set(LEVELS)
    assert all(len(row["seconds"]) == len(row["readings"]) == 2 for row in race["contestants"])
    # `benchmarks.standings` says where the stated errors come from: two deviations and more. A dozen contestants draw
    # one error each, anew on every processor; none is beyond twice that.
    far = [row for row in race["contestants"] if not abs(row["error_nats"]) <= 2 * row["stated_error_nats"]]
    assert far == []


def test_the_trained_encoder_is_as_exact_as_predicted(stages: dict[str, Any]):
    (level,) = stages["accuracy"]["trained"]["levels"]
    # Of two images, each on every processor anew: none is off by twice what is predicted of the typical one, which is
    # two deviations and more. `test_scorer` has what is said of a share of many.
    assert level["error_max"] <= 2 * level["predicted_median"]
    for kind in ("trained", "random"):
        assert stages["accuracy"][kind]["batches"]["score_difference"] <= 1e-4


def test_devices_share_work_without_talking(stages: dict[str, Any]):
    one, two = stages["growth"]["devices"]
    assert one["collectives"] == two["collectives"] == []
    assert one["flops_per_device"] == two["flops_per_device"] > 0


def test_the_rest_was_measured(stages: dict[str, Any], smoke: Path):
    assert stages.keys() == {stage.name for stage in SUITES["smoke"].stages}
    assert stages["memory"]["cases"][0]["measured_bytes"] > 0
    assert stages["jobs"]["pipeline"][0]["job_images_per_second"] > 0
    resume = stages["jobs"]["resume"]
    assert 0 < resume["parts_before"] < resume["parts"]
    assert resume["parts_rewritten"] == 0
    plots = {path.name for path in smoke.glob("*.svg")}
    assert {"race-toy-28.svg", "growth.svg"} <= plots
    page = (smoke / "README.md").read_text()
    assert all(f"]({plot})" in page for plot in plots)


def row(name: str, way: str, precision: str, score: float, predicted: float | None) -> dict[str, Any]:
    """A contestant's record of one turn."""
    reading = {"score": score, "listing_score": score - 20, "score_error": predicted}
    about = {"contestant": name, "way": way, "precision": precision, "emulated": False}
    return about | {"seconds": [2.0], "seconds_median": 2.0, "readings": [reading]}


def test_who_is_further_from_float64_than_stated_is_named():
    rows = [
        row("exact", "jacrev", "float64", 7.0, None),
        row("jepa_jax rules", "rules", "float32", 7.0 + 1e-5, 2e-5),
        row("theirs", "listing", "float32", 7.0 + 3e-5, None),
        row("rough", "rules", "bfloat16", 7.4, 0.5),
        row("broken", "rules", "tensorfloat32", float("nan"), 0.5),
    ]
    race = {"contestants": rows, "outputs": 32, "rules_flops": 3.0, "naive_flops": 4.0, "ceilings": {}}
    assert [words.partition(":")[0] for words in disagreements(standings(race))] == ["theirs", "broken"]


@dataclass(frozen=True)
class Failing:
    """A stage that fails halfway."""

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        record({"products": []})
        raise ValueError("no more")


def test_a_stage_that_fails_keeps_what_it_has_and_says_why():
    outcome = run.run_here(Stage("ceiling", Failing(), 60))
    assert (outcome["status"], outcome["reason"]) == ("failed", "ValueError: no more")
    assert outcome["results"] == {"products": []}
    facts = dict.fromkeys(("date", "processor", "device", "cores", "memory_gib", "commit"), "x")
    versions = dict.fromkeys(("jax", "jaxlib", "torch", "numpy", "python"), "1")
    page = render({"suite": "smoke", "environment": facts | versions, "stages": {"ceiling": outcome}})
    assert "Failed: ValueError: no more." in page


def test_a_process_that_fails_says_why():
    assert processes.call("os.path:basename", {"p": "a/b"}) == "b"
    with pytest.raises(processes.ProcessFailed, match="StatisticsError: no median"):
        processes.call("statistics:median", {"data": []})


def test_what_runs_past_its_limit_ends_with_everything_that_it_started():
    number = str(1_000_000 + os.getpid())  # of seconds; nobody else sleeps that long
    inner = {"target": "subprocess:call", "arguments": {"args": ["sleep", number]}}
    with pytest.raises(processes.ProcessFailed, match="past its limit of 5 s"):
        processes.call("benchmarks.processes:call", inner, limit_seconds=5)
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert ["sleep", number] not in commands


def test_every_suite_can_be_set_up():
    for suite in SUITES.values():
        names = [stage.name for stage in suite.stages]
        assert len(set(names)) == len(names)
    gpu = SUITES["gpu"].stages
    assert {stage.part for stage in gpu} == {1, 2}
    assert sum(stage.limit_seconds for stage in gpu if stage.part == 1) <= 480, "one visit of eight minutes"


def test_soundness_is_a_table():
    checks = [{"name": "softmax", "error": 1e-7, "tolerance": 1e-5, "passed": True}]
    assert "| softmax | 1.0e-07 | 1.0e-05 | yes |" in "".join(tables._RENDERERS["soundness"]({"checks": checks}))


def test_a_gpus_program_is_read_for_what_it_moves():
    program = """HloModule jit_f
ENTRY %main.3 (a: f16[4,8]) -> f32[4] {
  %a = f16[4,8]{1,0} parameter(0)
  %b = f16[32]{0} bitcast(%a)
  %pair = (f16[4,8]{1,0}, s8[16]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul"
  ROOT %sum.1 = f32[4]{0} fusion(%a), kind=kInput, calls=%c, metadata={op_name="jit(f)/reduce_sum" stack_frame_id=1}
}
"""
    product, total = instructions(program)
    assert (product.kind, gpu.moved(product)) == ("custom-call", 64 + 16 + 64 + 64)
    assert (total.kind, gpu.moved(total)) == ("fusion", 16 + 64)
