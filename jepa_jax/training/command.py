"""What `jepa-jax train` does: progress on the console, and at the end an encoder that loads by its directory."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jepa_jax.encoders import EncoderSpec
from jepa_jax.jobs.progress.console import duration
from jepa_jax.paths import AnyPath
from jepa_jax.training.config import load_config
from jepa_jax.training.data import load_examples
from jepa_jax.training.loop import CollapseWarning, train
from jepa_jax.training.saved_encoder import write_encoder


class TimeLeft:
    """How long the rest of a run takes, by the pace since its first report: what lies before is compiling.

    Args:
        steps: of the whole run.
        clock: gives the time in seconds.
    """

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic):
        self._steps, self._clock = steps, clock
        self._first: tuple[int, float] | None = None

    def after(self, step: int) -> str:
        """``, 12 min left`` where that is known."""
        now = self._clock()
        if self._first is None or step <= self._first[0]:
            self._first = step, now
            return ""
        pace = (now - self._first[1]) / (step - self._first[0])
        return f", {duration(pace * (self._steps - step))} left"


def run_training(console: Console, source: str, data: Path, output: AnyPath, steps: int | None) -> None:
    """Train, or go on with training; at the end ``output/encoder`` is the encoder of the last step."""
    config = load_config(source)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    examples = load_examples(data)
    console.print(f"{config.name}: {config.steps:,} steps of {config.batch_size} among {len(examples):,} examples")
    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"),
        console=console,
        disable=not console.is_terminal,
    )
    with progress, warnings.catch_warnings():
        warnings.simplefilter("always", CollapseWarning)
        warnings.showwarning = lambda message, *_: progress.console.print(f"[bold yellow]Warning:[/] {message}")
        task = progress.add_task("", total=config.steps, terms="compiling")
        left = TimeLeft(config.steps)

        def begin(step: int) -> None:
            progress.reset(task, completed=step, terms="compiling")
            if step:
                of = f"step {step:,} of {config.steps:,}"
                console.print(f"Resuming from the checkpoint of {of} in {output / 'checkpoints'}.", soft_wrap=True)

        def report(step: int, terms: dict[str, float]) -> None:
            text = "  ".join(f"{name} {value:.3g}" for name, value in terms.items())
            progress.update(task, completed=step, terms=text)
            if not console.is_terminal:
                said = f"step {step:,} of {config.steps:,} ({step / config.steps:.0%}{left.after(step)})  {text}"
                console.print(said, soft_wrap=True, highlight=False)

        state = train(config, examples, output, report, begin)
    if isinstance(config.encoder, EncoderSpec):
        write_encoder(config, state, examples, output / "encoder")
        console.print(f"Trained. Use it by its directory: --model {output / 'encoder'}", soft_wrap=True)
    else:
        console.print(f"Trained. The state is in {output / 'checkpoints'}.")
