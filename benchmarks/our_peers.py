"""Our engines as contestants."""

from __future__ import annotations

import jax
import numpy as np

import jepa_jax as jj
from benchmarks.contest import Contest
from benchmarks.peers import Contestant, Entry, Reading
from jepa_jax.numerics.float64 import float64_scope


def our_contestant(contest: Contest, entry: Entry) -> Contestant:
    """`jepa_jax.score` with one of its engines: the score of a batch, and the spectrum if it is asked for."""
    images = np.resize(contest.images, (entry.batch, *contest.images.shape[1:]))
    engine = "rules" if entry.way == "rules" else "generic"
    scorer = jj.Scorer(contest.encoder, engine=engine, precision=entry.precision, spectrum=entry.values)
    scorer.params = jax.device_put(scorer.params)

    def prepare() -> float:
        with float64_scope(entry.precision == "float64"):
            seconds = scorer.program(images).compile_seconds
        scorer(images)  # makes the kernels, once for all, and lets a device load the program
        return seconds

    def read(result: jj.ScoreResult) -> Reading:
        # Through NumPy: JAX itself would read float64 as float32 here.
        score, listing, error = (
            float(np.asarray(part)[0]) for part in (result.score, result.listing_score, result.score_error)
        )
        return Reading(score, listing if entry.values else None, error)

    return Contestant(entry, prepare, lambda: scorer(images), read)
