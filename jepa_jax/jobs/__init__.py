"""Scoring jobs: sources of images, shards, tables, resume, several processes."""

from jepa_jax.images.sources import Records as Records
from jepa_jax.images.sources import open_source as open_source
from jepa_jax.jobs.amortising import run_amortised as run_amortised
from jepa_jax.jobs.options import Amortise as Amortise
from jepa_jax.jobs.options import JobOptions as JobOptions
from jepa_jax.jobs.output.schema import SAVABLE as SAVABLE
from jepa_jax.jobs.progress.protocol import Progress as Progress
from jepa_jax.jobs.progress.protocol import ShardReport as ShardReport
from jepa_jax.jobs.progress.protocol import Summary as Summary
from jepa_jax.jobs.runner import run_job as run_job
from jepa_jax.jobs.stopping import JobInterrupted as JobInterrupted
