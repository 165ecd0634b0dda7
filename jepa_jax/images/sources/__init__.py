"""What is scored: one file per kind of input, each of which makes `Records`; opening.py tells them apart."""

from jepa_jax.images.sources.opening import accepted as accepted
from jepa_jax.images.sources.opening import name_in_full as name_in_full
from jepa_jax.images.sources.opening import open_source as open_source
from jepa_jax.images.sources.opening import open_sources as open_sources
from jepa_jax.images.sources.records import Records as Records
