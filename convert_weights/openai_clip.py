"""CLIP as OpenAI's own code holds it: the state dict of ``clip.load(...)``, in half precision.

OpenCLIP took over OpenAI's names, so the table is the same; three numbers beside the weights tell the formats
apart. The downloads themselves are TorchScript archives, whose state dict must be saved first.
"""

from __future__ import annotations

from convert_weights import openclip

HEADER = frozenset({"input_resolution", "context_length", "vocab_size"})
"""The numbers by which an OpenAI file describes itself; no other format has them."""

LEFT_OUT = openclip.LEFT_OUT | dict.fromkeys(sorted(HEADER), "a number of the model's description")

select = openclip.select
table = openclip.table
