"""Pictures to measure on: made up, the same everywhere, with the spectrum of photographs."""

from __future__ import annotations

import numpy as np


def natural_pictures(count: int, size: int, seed: int = 0) -> list[np.ndarray]:
    """Random pictures whose amplitudes fall as 1 / frequency, as those of photographs do.

    Channels share most of their variation; contrast varies from picture to picture.

    Args:
        count: how many.
        size: side, pixels.
        seed: of the random numbers.

    Returns:
        uint8 arrays [size, size, 3].
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    falling = 1 / np.maximum(frequency, 1 / size)
    falling[0, 0] = 0

    def pattern() -> np.ndarray:
        waves = rng.standard_normal((2, *falling.shape))
        field = np.fft.irfft2((waves[0] + 1j * waves[1]) * falling, (size, size))
        return field / field.std()

    pictures = []
    for _ in range(count):
        grey, contrast = pattern(), rng.uniform(30, 60)
        channels = [0.9 * grey + 0.45 * pattern() for _ in range(3)]
        values = 120 + contrast * np.stack(channels, axis=-1)
        pictures.append(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    return pictures
