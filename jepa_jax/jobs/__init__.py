"""Scoring jobs: sources of images, shards, tables, resume."""

from jepa_jax.jobs.runner import SAVABLE as SAVABLE
from jepa_jax.jobs.runner import Summary as Summary
from jepa_jax.jobs.runner import run_job as run_job
from jepa_jax.jobs.sources import open_source as open_source
