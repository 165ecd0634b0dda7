"""`jepa-jax score`: images to a table of scores."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from jepa_jax.cli.amortised_options import AMORTISED, MethodChoice, TailChoice, amortise, require_amortised
from jepa_jax.cli.app import NOTHING_SCORED, app, console, errors
from jepa_jax.cli.encoder_options import Frames, FrameStep, ImageSize, Layers, Model, Precision, memory_bytes
from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources import accepted


class ColumnChoice(StrEnum):
    """Values of --save."""

    singular_values = "singular_values"
    embedding = "embedding"


class SaveDtypeChoice(StrEnum):
    """Values of --save-dtype."""

    float32 = "float32"
    float16 = "float16"


class PositionChoice(StrEnum):
    """Values of --position-resize."""

    bicubic_offset = "bicubic_offset"
    bicubic = "bicubic"
    bicubic_antialias = "bicubic_antialias"


SEVERAL = "Several processes"
ROBUST = "Failures and resuming"


@app.command()
def score(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help=f"What to score: {accepted()}. Folders are searched recursively; "
            "several archives are one input: shard-{000..127}.tar; shard-*.tar::jpg names a sample's picture. "
            "Several inputs make one table.",
        ),
    ],
    output: Annotated[str, typer.Option(help="Directory of the table; an unfinished job there is resumed.")],
    column: Annotated[
        str | None,
        typer.Option(help="Column, array, feature or file ending that holds the pictures or paths; as INPUT::NAME."),
    ] = None,
    keys: Annotated[
        str | None, typer.Option(help="Score only these records: keys.txt or selection.parquet of jepa-jax select.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only the first N records.")] = None,
    shuffle_seed: Annotated[
        int | None, typer.Option(help="Take records in a random order; with --limit, a random sample.")
    ] = None,
    model: Model = None,
    image_size: ImageSize = None,
    frames: Frames = None,
    frame_step: FrameStep = None,
    precision: Precision = "auto",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Score again, at a finer level, images whose score_error exceeds this many nats; by default 0.05 "
            "with auto on an accelerator."
        ),
    ] = None,
    noise_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Measure the encoder's rounding noise on this many images first, for score_error; 0 takes what is "
            "typical. For encoders without null directions.",
        ),
    ] = 0,
    memory: Annotated[
        float | None, typer.Option(help="GiB that scoring may take; by default what the device has.")
    ] = None,
    score_only: Annotated[
        bool, typer.Option("--score-only", help="Leave out singular values and listing_score: no eigensolver.")
    ] = False,
    layer: Layers = None,
    save: Annotated[
        list[ColumnChoice] | None,
        typer.Option(help="Save this as a column too, also with --views of the image itself; may be repeated."),
    ] = None,
    save_dtype: Annotated[SaveDtypeChoice, typer.Option(help="Dtype of --save's columns.")] = SaveDtypeChoice.float32,
    views: Annotated[
        int, typer.Option(min=1, help="Random views of each image, combined into one score; 1: the image itself.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the random views.")] = 0,
    position_resize: Annotated[
        PositionChoice | None,
        typer.Option(help="How position embeddings are resized; by default as their authors do."),
    ] = None,
    l2_normalize: Annotated[
        bool | None, typer.Option(help="Divide embeddings by their length; by default as the checkpoint says.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per batch of a process, every view counted; by default what fills it."),
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Records per part, which is a file of the table; by default 8 to 1,024.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that decode images; by default 2, or on an accelerator as many as there are cores, up to "
            "16; 0 decodes in a thread, for small jobs.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan, compile, and try some records: rates, hours, bytes; write nothing."
        ),
    ] = False,
    method: Annotated[
        MethodChoice,
        typer.Option(
            help="Amortised: predict most scores from one forward pass; a sample and a tail are exact.",
            rich_help_panel=AMORTISED,
        ),
    ] = MethodChoice.exact,
    exact_sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images that are drawn at random and scored exactly, to fit the predictor on; by default 2,000.",
            rich_help_panel=AMORTISED,
        ),
    ] = None,
    sample_seed: Annotated[
        int | None, typer.Option(help="Seed of the draw of --exact-sample; by default 0.", rich_help_panel=AMORTISED)
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            help="Take a predictor that is fitted already: the folder predictor of an earlier amortised job.",
            rich_help_panel=AMORTISED,
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            help="Share of the exact scores that lie between score_low and score_high; by default 0.9.",
            rich_help_panel=AMORTISED,
        ),
    ] = None,
    escalate: Annotated[
        float | None,
        typer.Option(
            help="Share of the images to score exactly after all are predicted, from one end on (--tail); by default "
            "0.02.",
            rich_help_panel=AMORTISED,
        ),
    ] = None,
    tail: Annotated[
        TailChoice | None,
        typer.Option(
            help="Which end of the predictions is scored exactly; by default the lowest.", rich_help_panel=AMORTISED
        ),
    ] = None,
    between: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Score exactly what lies between two quantiles of the predictions, in place of an end.",
            rich_help_panel=AMORTISED,
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Score exactly as many as it takes to find this share of the true tail; --escalate is then the "
            "share of all images that the tail is.",
            rich_help_panel=AMORTISED,
        ),
    ] = None,
    max_failures: Annotated[
        str | None,
        typer.Option(
            help="Give up when more records fail: a count (50), or a share of those tried (10%); by default never.",
            rich_help_panel=ROBUST,
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Score the parts that have failures again.", rich_help_panel=ROBUST)
    ] = False,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Score what is new in the input since the job began.", rich_help_panel=ROBUST),
    ] = False,
    log_json: Annotated[
        bool,
        typer.Option("--log-json", help="Print a JSON line per part and per note on stderr.", rich_help_panel=ROBUST),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Start N processes on this machine; each gets its own GPUs.", rich_help_panel=SEVERAL
        ),
    ] = None,
    num_processes: Annotated[
        int | None,
        typer.Option(min=1, help="How many share the job, where you start each yourself.", rich_help_panel=SEVERAL),
    ] = None,
    process_id: Annotated[
        int | None,
        typer.Option(min=0, help="Which of --num-processes this one is, from 0.", rich_help_panel=SEVERAL),
    ] = None,
    pod: Annotated[
        bool | None,
        typer.Option(
            help="Share the job among the hosts of a TPU pod, as JAX knows them; by default on a TPU.",
            rich_help_panel=SEVERAL,
        ),
    ] = None,
) -> None:
    """Score every image of an input into a Parquet table; the same command resumes what was interrupted.

    Under srun and on every worker of a TPU pod slice the same command shares the work out.
    """
    from jepa_jax.cli.dry_run import print_dry_run
    from jepa_jax.cli.progress import JsonProgress
    from jepa_jax.cli.reporting import print_summary
    from jepa_jax.costs.dry_run import dry_run as try_out
    from jepa_jax.encoders.shipped import ABOUT_DEFAULT, DEFAULT
    from jepa_jax.images.sources import open_sources
    from jepa_jax.images.sources.keys import read_keys
    from jepa_jax.images.sources.records import text_key
    from jepa_jax.jobs import JobInterrupted, JobOptions, run_amortised, run_job
    from jepa_jax.jobs.processes.launch import launch_here, together
    from jepa_jax.jobs.progress.console import ConsoleProgress, Quiet
    from jepa_jax.loading import load_encoder
    from jepa_jax.scoring.options import ScoreOptions

    asked = {
        "exact_sample": exact_sample,
        "sample_seed": sample_seed,
        "predictor": predictor,
        "coverage": coverage,
        "escalate": escalate,
        "tail": between or (tail and tail.value),
        "recall": recall,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    require_amortised(method, asked, tail, between)
    options = JobOptions(
        score=ScoreOptions(
            precision,
            spectrum=not score_only,
            tolerance=tolerance,
            memory=memory_bytes(memory),
            layers=layer or (),
        ),
        noise_images=noise_images,
        columns=tuple(column.value for column in save or ()),
        views=views,
        seed=seed,
        save_dtype=save_dtype.value,
        batch_size=batch_size,
        shard_size=shard_size,
        workers=workers or 0,
        max_failures=max_failures,
        retry_failed=retry_failed,
        extend=extend,
    )
    if processes is not None and (num_processes is not None or process_id is not None):
        raise ArgumentError(
            "--processes starts all processes of a job here, and --num-processes and --process-id are of one that you "
            "start yourself: give the one or the others."
        )
    if processes is not None and processes > 1 and not dry_run:
        raise typer.Exit(launch_here(processes, _without_processes(sys.argv[1:])))
    with _interruption_as_exit(), together(num_processes, process_id, pod) as team:
        speaks = team.speaks
        if model is None and speaks:
            console.print(ABOUT_DEFAULT, soft_wrap=True)
        if workers is None:
            options = dataclasses.replace(options, workers=_workers_here())
        if speaks:
            console.print("Looking through the input and loading the encoder ...")
        found = open_sources(sources, column)
        found = found.only(read_keys(keys)) if keys else found
        found = found.some(limit, shuffle_seed)
        encoder = load_encoder(
            model or DEFAULT,
            image_size=image_size,
            frames=frames,
            frame_step=frame_step,
            position_resize=position_resize.value if position_resize else None,
            l2_normalize=l2_normalize,
        )
        if speaks:
            left_out = f", {found.left_out} other files left out" if found.left_out else ""
            said = f"{len(found.keys):,} {found.nouns} in {text_key(' and '.join(sources))}{left_out}; {encoder}"
            console.print(said, soft_wrap=True, markup=False)
        if method == MethodChoice.amortised:
            options = dataclasses.replace(options, amortise=amortise(asked, encoder))
        if dry_run:
            with ConsoleProgress(console) if speaks else contextlib.nullcontext(Quiet()) as shown:
                plan = try_out(encoder, found, output, options, team=team, doing=shown.doing)
            if speaks:
                print_dry_run(console, plan)
            return
        if speaks:
            console.print("If it is interrupted, the same command goes on from the last whole part.")
        try:
            with ConsoleProgress(console) if speaks else contextlib.nullcontext(Quiet()) as shown:
                progress = JsonProgress(shown, sys.stderr) if log_json else shown
                run = run_job if options.amortise is None else run_amortised
                summary = run(encoder, found, output, progress, options, team)
        except JobInterrupted as interruption:
            errors.print(str(interruption), soft_wrap=True, markup=False)  # before the others are waited for
            raise
        if speaks:
            print_summary(console, summary, output)
            if not summary.scored:
                raise typer.Exit(NOTHING_SCORED)


@contextlib.contextmanager
def _interruption_as_exit() -> Iterator[None]:
    """A job that a signal stopped ends with the signal's status."""
    from jepa_jax.jobs import JobInterrupted

    try:
        yield
    except JobInterrupted as interruption:
        raise typer.Exit(interruption.exit_status) from interruption


def _workers_here() -> int:
    import jax

    from jepa_jax.images.pipeline import default_workers
    from jepa_jax.numerics.platforms import cores, platform_of
    from jepa_jax.scoring.memory import processes_here

    return default_workers(cores(), processes_here(), platform_of(jax.local_devices()) == "cpu")


def _without_processes(arguments: list[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip or argument == "--processes":
            skip = not skip
        elif not argument.startswith("--processes="):
            kept.append(argument)
    return kept
