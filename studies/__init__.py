"""Trials: each has a protocol that is older than its results."""
