"""Runs that are killed, lengthened or given something else: the same run goes on, and what is left is whole."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import killed_training
import numpy as np
import pytest
from rich.console import Console

import jepa_jax as jj
from jepa_jax.encoders import save_encoder
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.paths import to_path
from jepa_jax.training import saved_encoder
from jepa_jax.training.checkpoints import restore_state, saved_steps
from jepa_jax.training.command import run_training
from jepa_jax.training.config import TrainingConfig, load_config
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.loop import train, weights_of
from jepa_jax.training.mlp import MLP
from jepa_jax.training.objectives import LeJEPA
from jepa_jax.training.run_files import MetricsFile, pin_run
from jepa_jax.training.saved_encoder import write_encoder
from jepa_jax.training.state import State, initial_state
from jepa_jax.training.views import VectorViews

CONFIG_FILE = """
from jepa_jax.training.config import Optimizer, TrainingConfig
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.mlp import MLP
from jepa_jax.training.objectives import LeJEPA
from jepa_jax.training.views import VectorViews

CONFIG = TrainingConfig(
    name="vectors",
    encoder=MLP(2, (16,), 4),
    objective=JointEmbedding(VectorViews(2, 0.1), LeJEPA()),
    optimizer=Optimizer(warmup_steps=5, decay_steps=20),
    steps=60,
    batch_size=32,
    log_every=5,
    checkpoint_every=4,
)
"""

IMAGES_CONFIG_FILE = """
from killed_training import RUNS

CONFIG = RUNS["ijepa"]
"""

VECTORS = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
ONE_STEP = TrainingConfig(
    "vectors", MLP(2, (16,), 4), JointEmbedding(VectorViews(2, 0.1), LeJEPA()), steps=1, batch_size=32
)


def assert_same_bits(one: State, other: State) -> None:
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b)), path


def logged(output: Path) -> list[dict]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds_per_step"} for line in lines]


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path):
    """A real SIGKILL, as soon as the second checkpoint is there; whatever step that hits."""
    (tmp_path / "config.py").write_text(CONFIG_FILE)
    np.savez(tmp_path / "data.npz", x_train=np.random.default_rng(0).normal(size=(100, 2)))

    def command(output: str) -> list[str]:
        """As a user would: with relative paths."""
        files = ["config.py", "--data", "data.npz", "--output", output]
        return [sys.executable, "-m", "jepa_jax", "train", *files]

    def final_state(output: str) -> State:
        checkpoints = to_path(tmp_path / output / "checkpoints")
        like = initial_state(load_config(tmp_path / "config.py"))
        return restore_state(checkpoints, saved_steps(checkpoints)[-1], like)

    done = subprocess.run(command("undisturbed"), cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    killed = subprocess.Popen(command("killed"), cwd=tmp_path, stdout=subprocess.DEVNULL)
    checkpoints = to_path(tmp_path / "killed" / "checkpoints")
    deadline = time.monotonic() + 120
    while len(saved_steps(checkpoints)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 0 < saved_steps(checkpoints)[-1] < 60
    resumed = subprocess.run(command("killed"), cwd=tmp_path, check=False, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"Resuming from the checkpoint of step \d+ of 60 in killed/checkpoints", resumed.stdout)
    assert re.search(r"step 60 of 60 \(100%(, 0 s left)?\)  .*loss", resumed.stdout)

    assert int(final_state("undisturbed")["step"]) == 60
    assert_same_bits(final_state("undisturbed"), final_state("killed"))
    assert logged(tmp_path / "undisturbed") == logged(tmp_path / "killed")
    assert [line["step"] for line in logged(tmp_path / "killed")] == list(range(5, 61, 5))


@pytest.mark.filterwarnings("ignore::jepa_jax.training.loop.CollapseWarning")  # a few steps take nothing anywhere
@pytest.mark.parametrize("name", killed_training.RUNS)
def test_whatever_the_optimizer_and_objective_keep_is_resumed(name: str, tmp_path: Path):
    """Muon's and Adam's moments, the moving average, the position in the data and in the schedule; any step."""
    config, examples = killed_training.RUNS[name], killed_training.EXAMPLES
    step = random.randrange(1, config.steps + 1)
    program = [sys.executable, killed_training.__file__, name, str(tmp_path / "killed"), str(step)]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as killed:
        undisturbed = train(config, examples, to_path(tmp_path / "undisturbed"))
        _, errors = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, errors
    left = saved_steps(to_path(tmp_path / "killed" / "checkpoints"))
    assert max(left, default=0) == (step - 1) // 3 * 3, f"killed after step {step}"

    resumed = train(config, examples, to_path(tmp_path / "killed"))
    assert int(resumed["step"]) == config.steps
    started = jax.tree.leaves(initial_state(config)["params"])
    assert not all(map(np.array_equal, started, jax.tree.leaves(undisturbed["params"])))
    assert_same_bits(undisturbed, resumed)
    assert logged(tmp_path / "undisturbed") == logged(tmp_path / "killed"), f"killed after step {step}"


def test_another_config_in_the_same_directory_is_refused(tmp_path: Path):
    train(ONE_STEP, VECTORS, to_path(tmp_path))
    with pytest.raises(ArgumentError, match="another seed"):
        train(dataclasses.replace(ONE_STEP, seed=1), VECTORS, to_path(tmp_path))


def test_other_examples_in_the_same_directory_are_refused(tmp_path: Path):
    output = to_path(tmp_path)
    pin_run(ONE_STEP, VECTORS, output)
    pin_run(dataclasses.replace(ONE_STEP, steps=2), VECTORS.copy(order="F"), output)  # the same, laid out otherwise
    written = (output / "config.json").read_text()
    others = [VECTORS[:39], VECTORS[::-1], VECTORS.reshape(20, 4), VECTORS.view(np.int32), np.nextafter(VECTORS, 0)]
    for other in others:
        with pytest.raises(ArgumentError, match=r"data .*SHA-256 .* give that data, or name a new directory"):
            pin_run(ONE_STEP, other, output)
    assert (output / "config.json").read_text() == written


def test_a_run_from_before_digests_is_resumed_and_has_one_then(tmp_path: Path):
    output, file = to_path(tmp_path), to_path(tmp_path / "config.json")
    pin_run(ONE_STEP, VECTORS, output)
    described = json.loads(file.read_text())
    del described["examples_sha256"]
    file.write_text(json.dumps(described))
    pin_run(ONE_STEP, VECTORS, output)
    with pytest.raises(ArgumentError, match="SHA-256"):
        pin_run(ONE_STEP, VECTORS + 1, output)


@pytest.mark.parametrize("content", ["", '{"config"', "[]", '{"config": 1}'])
def test_a_damaged_description_is_named(content: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ArgumentError, match=r"config\.json cannot be read .* remove that file"):
        pin_run(ONE_STEP, VECTORS, to_path(tmp_path))


def test_a_start_that_ends_while_it_writes_leaves_what_was_there(tmp_path: Path):
    """A limit on the size of files cuts every write after a few bytes, as a kill or a full disk would."""
    output = to_path(tmp_path)
    pin_run(ONE_STEP, VECTORS, output)
    lines = [json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(1, 11)]
    (output / "metrics.jsonl").write_text("".join(lines))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(JobError, match=r"config\.json cannot be written"):
            pin_run(dataclasses.replace(ONE_STEP, steps=2), VECTORS, output)
        with pytest.raises(JobError, match=r"metrics\.jsonl cannot be written"):
            MetricsFile(output / "metrics.jsonl", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    MetricsFile(output / "metrics.jsonl", 5)
    assert (output / "metrics.jsonl").read_text() == "".join(lines[:5])


def test_a_lengthened_run_leaves_the_encoder_of_its_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.py").write_text(IMAGES_CONFIG_FILE)
    np.savez(tmp_path / "data.npz", x_train=killed_training.EXAMPLES)
    output = to_path(tmp_path / "run")

    def saved_after(steps: int) -> jj.Encoder:
        run_training(Console(quiet=True), str(tmp_path / "config.py"), tmp_path / "data.npz", output, steps)
        return jj.load_encoder(output / "encoder")

    def last_weights(steps: int) -> dict:
        checkpoints = output / "checkpoints"
        assert saved_steps(checkpoints)[-1] == steps
        return weights_of(restore_state(checkpoints, steps, initial_state(killed_training.RUNS["ijepa"])))

    for steps in (6, 9):
        assert_same_bits(saved_after(steps).params, last_weights(steps))
    monkeypatch.setattr(saved_encoder, "save_encoder", lambda *_: pytest.fail("saved again"))
    assert_same_bits(saved_after(9).params, last_weights(9))
    assert sorted(path.name for path in output.iterdir()) == ["checkpoints", "config.json", "encoder", "metrics.jsonl"]


class Killed(BaseException):
    """What no code catches."""


@pytest.mark.parametrize("passed", range(4), ids=["saving", "moving aside", "moving in", "removing"])
def test_a_kill_while_the_encoder_is_replaced_leaves_a_whole_one_or_none(
    passed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Death before each operation on the directories in turn; the next call mends all."""
    config, directory = killed_training.RUNS["ijepa"], to_path(tmp_path / "encoder")
    states = [initial_state(dataclasses.replace(config, seed=seed)) | {"step": np.int32(seed)} for seed in (1, 2)]

    def write(state: State) -> None:
        write_encoder(config, state, killed_training.EXAMPLES, directory)

    write(states[0])
    digests = [jj.load_encoder(directory).digest]
    operations = iter(["saving", "moving aside", "moving in", "removing"][:passed])

    def dying(operation: Callable[..., Any]) -> Callable[..., Any]:
        def perform(*arguments: Any, **named: Any) -> Any:
            if next(operations, None) is None:
                raise Killed
            return operation(*arguments, **named)

        return perform

    def save_half(*arguments: Any) -> None:
        (arguments[1] / "params").mkdir(parents=True)
        dying(save_encoder)(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(saved_encoder, "save_encoder", save_half if passed == 0 else dying(save_encoder))
        for place, name in ((type(directory), "rename"), (shutil, "rmtree")):
            whole = getattr(place, name)
            ours = dying(whole)
            # Orbax moves and removes directories of its own inside of ours.
            patched.setattr(
                place,
                name,
                lambda path, *rest, ours=ours, whole=whole, **named: (
                    ours if Path(path).parent == tmp_path else whole
                )(path, *rest, **named),
            )
        with pytest.raises(Killed):
            write(states[1])
    assert directory.exists() == (passed != 2)
    if directory.exists():
        assert (jj.load_encoder(directory).digest == digests[0]) == (passed < 3)
    write(states[1])
    assert_same_bits(jj.load_encoder(directory).params, weights_of(states[1]))
    assert [path.name for path in directory.parent.iterdir()] == ["encoder"]


def test_fewer_steps_than_were_made_are_refused(tmp_path: Path):
    config, place = dataclasses.replace(killed_training.RUNS["ijepa"], steps=1), to_path(tmp_path / "run")
    train(config, killed_training.EXAMPLES, place)
    begun = (place / "config.json").read_bytes()
    (checkpoint,) = (path for path in (place / "checkpoints").iterdir() if path.name.isdigit())
    checkpoint.rename(checkpoint.with_name("2"))
    with pytest.raises(ArgumentError, match=r"steps=1: the run in output .* has made 2; give that or more"):
        train(config, killed_training.EXAMPLES, place)
    assert (place / "config.json").read_bytes() == begun


def test_what_is_no_encoder_of_a_run_is_not_replaced(tmp_path: Path):
    config, directory = killed_training.RUNS["ijepa"], to_path(tmp_path / "encoder")
    directory.mkdir()
    (directory / "mine.py").write_text("")
    with pytest.raises(ArgumentError, match="is no encoder of this run; move it"):
        write_encoder(config, initial_state(config), killed_training.EXAMPLES, directory)
    assert (directory / "mine.py").exists()
