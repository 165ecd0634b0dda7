"""Weights of other frameworks to jepa_jax encoders: one file per source format and family."""
