"""Our engines as contestants: in this process, or with one device per core in another."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import numpy as np

import jepa_jax as jj
from benchmarks.contest import Contest
from benchmarks.environment import cores
from benchmarks.peers import Contestant, Entry, Reading, Unavailable
from benchmarks.turns import TurnTaker
from jepa_jax.spectrum.spectrum import float64_scope


def our_contestant(contest: Contest, entry: Entry) -> Contestant:
    """`jepa_jax.score` with one of its engines: spectrum, score and listing score of a batch."""
    images = np.resize(contest.images, (entry.images, *contest.images.shape[1:]))
    scorer = jj.Scorer(contest.encoder, engine=entry.way, precision=entry.precision)
    scorer.params = jax.device_put(scorer.params)

    def prepare() -> float:
        with float64_scope(entry.precision == "float64"):
            return scorer.program(images).compile_seconds

    def read(result: jj.ScoreResult) -> Reading:
        # Through NumPy: JAX itself would read float64 as float32 here.
        found = (np.asarray(part)[0] for part in (result.score, result.listing_score, result.score_error))
        return Reading(*map(float, found))

    return Contestant(entry, prepare, lambda: scorer(images), read)


def our_contestant_on_every_core(contest: Contest, entry: Entry) -> Contestant:
    """The same in a process that sees one device per core, with an image for each."""
    if jax.default_backend() != "cpu":
        raise Unavailable("one device per core is for processors.")
    folder = tempfile.TemporaryDirectory()
    images = Path(folder.name) / "images.npy"
    np.save(images, np.resize(contest.images, (cores(), *contest.images.shape[1:])))
    taker = TurnTaker(
        contest.folder,
        images,
        contest.image_size,
        devices=cores(),
        options={"engine": entry.way, "precision": entry.precision},
    )

    def close() -> None:
        taker.close()
        folder.cleanup()

    return Contestant(entry, taker.compile_seconds, taker.turn, lambda found: Reading(**found), close)
