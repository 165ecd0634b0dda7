"""From an encoder and a batch to scores: one jitted, sharded function, planned into memory and compiled once.

`scorer.score` is the way in; `compute` holds the function itself, and `readings` what is read off its spectra.
"""
