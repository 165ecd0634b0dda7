"""A pilot on a job's own records: what it counts, what follows from it, and that small and broken inputs do."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from jobs_shared import Silent, tiny_encoder
from makes import TINY
from PIL import Image
from rich.console import Console

from jepa_jax.cli.dry_run import print_dry_run, what_would_help
from jepa_jax.costs.dry_run import DryRun, dry_run
from jepa_jax.costs.pilot import Pilot, spread
from jepa_jax.images import InputRecipe
from jepa_jax.images.pipeline import MOST_WORKERS, default_workers
from jepa_jax.jobs import JobOptions, open_source, run_job

PILOT = Pilot(100, 0.0, 1.0, 50.0, 100.0, 40.0, 2000.0, 10, 2)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 1000, 4099])
def test_a_sample_is_spread_and_takes_each_once(count: int):
    indices = range(5, 5 + count)
    taken = list(itertools.islice(spread(indices), 2 * count))
    assert sorted(taken[:count]) == list(indices)
    assert sorted(taken[count:]) == list(indices)
    some = np.array(taken[: max(1, count // 8)])
    if count >= 1000:
        assert np.histogram(some, 10, (5, 5 + count))[0].min() > 0


def test_seconds_are_of_batches_that_are_filled_up():
    assert PILOT.seconds(400) == 1 + 10
    assert PILOT.seconds(401) == pytest.approx(1 + 401 / 40 + 9 / 100)
    assert PILOT.seconds(400, processes=4) == 1 + 2.5
    assert dataclasses.replace(PILOT, device=None).seconds(401) == pytest.approx(1 + 401 / 40)


def test_the_bottleneck_and_what_helps():
    plan = DryRun(
        *(1, 1, 1, 1, 1, 1, 1),
        recipe=InputRecipe(TINY.preprocess),
        host_bytes=1,
        rows_per_pass=None,
        device_bytes=None,
        compile_seconds=1.0,
        row_bytes=10.0,
        pilot=PILOT,
        cores=16,
        on_processor=False,
    )
    assert PILOT.bottleneck == "decoding"
    assert what_would_help(plan, PILOT) == "--workers 5 would keep the device busy"
    few = dataclasses.replace(plan, cores=4)
    assert what_would_help(few, PILOT).startswith("--workers 4 would help, though it takes 5")
    assert "all 2 cores are taken" in what_would_help(dataclasses.replace(plan, cores=2), PILOT)
    swift = dataclasses.replace(PILOT, decoding=900.0, workers=8)
    assert swift.bottleneck == "device"
    assert what_would_help(plan, swift) == "decoding keeps up; --workers 2 would do"
    assert "see why" in what_would_help(plan, dataclasses.replace(PILOT, device=None))


@pytest.mark.parametrize(("good", "bad", "workers"), [(10, 0, 0), (7, 3, 1), (0, 3, 0), (1, 0, 0)])
def test_small_and_broken_inputs(good: int, bad: int, workers: int, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(good):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{number}.png")
    for number in range(bad):
        (folder / f"bad-{number}.png").write_bytes(b"no picture")
    options, source = JobOptions(batch_size=4, workers=workers, shard_size=2), open_source(folder)
    plan = dry_run(tiny_encoder(), source, tmp_path / "out", options, pilot_seconds=0.2)
    assert not (tmp_path / "out").exists()
    pilot = plan.pilot
    assert pilot is not None
    assert pilot.failed == pytest.approx(bad / (good + bad), abs=0.15)
    assert (pilot.device is None) == (good == 0)
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert pilot.picture_bytes == pytest.approx(np.mean(sizes))
    assert 0 < plan.seconds < math.inf
    console = Console(width=160)
    with console.capture() as capture:
        print_dry_run(console, plan)
    for fact in ("decoding alone", "device alone", "both together", "bottleneck", "bytes a row", "after compiling"):
        assert fact in capture.get()
    run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options)
    done = dry_run(tiny_encoder(), source, tmp_path / "out", options)
    assert (done.pilot, done.seconds) == (None, 0.0)
    print_dry_run(console, done)


def test_workers_are_as_many_as_there_are_cores_for_them():
    assert default_workers(64, 1, on_processor=True) == 2
    assert [default_workers(cores, 1, False) for cores in (1, 2, 8, 64)] == [2, 2, 7, MOST_WORKERS]
    assert default_workers(32, 4, False) == 7
