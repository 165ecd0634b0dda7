"""PyTorch's contestants: the paper's listing and `torch.func.jacrev`, each with what makes it fastest."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

from benchmarks.contest import Contest
from benchmarks.peers import Contestant, Entry, Reading, Unavailable
from jepa_jax.numerics.precision import Precision

_AUTOCAST: dict[Precision, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
FASTER = (*_AUTOCAST, "tensorfloat32")
LEVELS = (*FASTER, "float32", "float64")
"""Levels that PyTorch has, the first three on GPUs."""

ALIVE_COTANGENTS = 5
"""Copies of the largest intermediate's cotangent that live side by side when all rows are pulled back at once."""


def torch_contestant(contest: Contest, entry: Entry) -> Contestant:
    """One of PyTorch's ways, on one image."""
    device = next(contest.model.parameters()).device
    dtype = torch.float64 if entry.precision == "float64" else torch.float32
    model = contest.model if dtype == torch.float32 else copy.deepcopy(contest.model).double()
    pixels = torch.from_numpy(contest.images[0]).permute(2, 0, 1)[None].to(device, dtype)
    rows = contest.encoder.spec.embedding_size
    if entry.precision not in LEVELS:
        raise Unavailable(f"PyTorch has no {entry.precision}.")
    if entry.precision in FASTER and device.type != "cuda":
        raise Unavailable(f"{entry.precision} is not emulated in PyTorch.")
    note = ""
    if entry.way == "vectorized listing":
        needed = vectorized_bytes(contest)
        note = f"all rows at once: about {needed / 2**30:.1f} GiB"
        if needed > 0.8 * _free_bytes(device):
            raise Unavailable(f"{note}, of {_free_bytes(device) / 2**30:.1f} GiB that are free.")
    # PyTorch's fused attention has no batching rule for its pullback: under vmap it would loop over rows.
    attention = "sdpa" if entry.way == "listing" else "eager"
    jacobian = _WAYS[entry.way](model, entry, rows)

    def prepare() -> float | None:
        """Warm up on some rows; with `torch.compile`, compile on the first chunk."""
        model.set_attn_implementation(attention)
        begun = time.perf_counter()
        with products_in(entry.precision):
            jacobian(pixels, entry.chunk or 1)
        return time.perf_counter() - begun if entry.way == "compiled jacrev" else None

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        model.set_attn_implementation(attention)
        with products_in(entry.precision):
            matrix = jacobian(pixels, rows).detach().to(dtype).reshape(rows, -1)
        return matrix, torch.linalg.svdvals(matrix).cpu()

    def read(found: tuple[torch.Tensor, torch.Tensor]) -> Reading:
        matrix, values = found
        listing = values.clip(min=1e-6).log().sum()
        return Reading(contest.structural_score(matrix.cpu().numpy()), float(listing))

    return Contestant(entry, prepare, run, read, note=note)


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """TF32 products throughout, or 16 bits where autocast takes them; float32's and float64's own as they are."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tensorfloat32"
    try:
        with torch.autocast("cuda", _AUTOCAST[precision]) if precision in _AUTOCAST else contextlib.nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def vectorized_bytes(contest: Contest) -> int:
    """What pulling back all rows at once takes, roughly."""
    vit = contest.encoder.spec.vit
    tokens = (contest.image_size // vit.patch_size) ** 2 + vit.prefix_tokens
    widest = tokens * max(vit.mlp_width, vit.heads * tokens)
    inputs = contest.images[0].size
    return 4 * vit.embedding_size * (ALIVE_COTANGENTS * widest + 2 * inputs)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


Jacobian = Callable[[torch.Tensor, int], torch.Tensor]
"""Pixels [1, 3, H, W] and a number of rows to those rows of the Jacobian."""


def _listing(model: Any, entry: Entry, rows: int) -> Jacobian:
    """The paper's listing: the Jacobian of the summed embedding, row after row or all at once."""
    del rows

    def jacobian(pixels: torch.Tensor, some: int) -> torch.Tensor:
        found = torch.autograd.functional.jacobian(
            lambda x: model(x).pooler_output.sum(0)[:some], pixels, vectorize=entry.way == "vectorized listing"
        )
        assert isinstance(found, torch.Tensor)  # a tuple comes of several inputs alone
        return found

    return jacobian


def _jacrev(model: Any, entry: Entry, rows: int) -> Jacobian:
    del rows

    def jacobian(pixels: torch.Tensor, some: int) -> torch.Tensor:
        return torch.func.jacrev(lambda x: model(x[None]).pooler_output[0, :some], chunk_size=entry.chunk)(pixels[0])

    return jacobian


def _compiled_jacrev(model: Any, entry: Entry, rows: int) -> Jacobian:
    """jacrev's chunk as one compiled program, run chunk after chunk.

    `torch.compile` of the whole would unroll the loop over chunks, and compile for as many times longer.
    """

    def chunk(pixels: torch.Tensor, cotangents: torch.Tensor) -> torch.Tensor:
        pullback = torch.func.vjp(lambda x: model(x[None]).pooler_output[0], pixels)[1]
        return torch.func.vmap(pullback)(cotangents)[0]

    compiled = torch.compile(chunk, backend=entry.compiler, dynamic=False)

    def jacobian(pixels: torch.Tensor, some: int) -> torch.Tensor:
        seeds = torch.eye(rows, dtype=pixels.dtype, device=pixels.device)[:some].split(entry.chunk or rows)
        return torch.cat([compiled(pixels[0], seed) for seed in seeds])

    return jacobian


_WAYS: dict[str, Callable[[Any, Entry, int], Jacobian]] = {
    "listing": _listing,
    "vectorized listing": _listing,
    "jacrev": _jacrev,
    "compiled jacrev": _compiled_jacrev,
}
