"""Decoding ahead of the device: worker threads prepare images while the device computes, bounded in memory."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from jepa_jax.encoders.specs import PreprocessSpec
from jepa_jax.errors import ImageError
from jepa_jax.jobs.sources import Source, decode


@dataclass(frozen=True)
class Decoded:
    """One record after decoding: an image, or the reason why there is none."""

    index: int
    image: np.ndarray | None
    reason: str = ""


def decode_ahead(
    source: Source, indices: Iterable[int], spec: PreprocessSpec, *, workers: int, ahead: int
) -> Iterator[Decoded]:
    """Decode records in order, at most ``ahead`` of them before they are wanted.

    Args:
        source: the records.
        indices: which of them, in this order.
        spec: the encoder's recipe.
        workers: threads; Pillow and NumPy release the interpreter lock while they work.
        ahead: how many decoded images may wait.
    """

    def one(index: int) -> Decoded:
        try:
            return Decoded(index, decode(source.read(index), spec))
        except ImageError as error:
            return Decoded(index, None, str(error))
        except OSError as error:
            return Decoded(index, None, f"the file cannot be read: {error}")

    waiting: collections.deque[Future[Decoded]] = collections.deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for index in indices:
                waiting.append(pool.submit(one, index))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
