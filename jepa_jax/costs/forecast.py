"""What a job would take, before anything of it is done: time, devices' hours, bytes in and out, cores that decode.

Nothing is measured here but the table, a few thousand rows of which are written to memory. The rest is multiplied out
of rates that were measured elsewhere: a device's by `jepa-jax bench`, a core's by decoding.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jepa_jax.errors import ArgumentError
from jepa_jax.parquet import parquet_bytes

DECODED = 240.0
"""Pictures of 500 x 375 pixels that a core decodes and resizes to 224 in a second, JPEGs; measured on an AMD EPYC."""

PICTURE = 110_000
"""Bytes of such a picture, as in ImageNet."""

_SAMPLE = 4096
"""Rows of the table that is written."""

_KEY = "train/n01440764/n01440764_{:05d}.JPEG"


@dataclass(frozen=True)
class Forecast:
    """What a job would take.

    Attributes:
        images: how many.
        devices: how many share them; none waits for another.
        rate: images per second of one device.
        row: bytes of a row of the table, see `bytes_of_a_row`.
        picture: bytes of an encoded picture.
        decoded: pictures per second of one core.
        cores: that decode, of all machines; None where they are enough.
        exact: of the images, how many are scored exactly; None for all.
        forward_rate: images per second of one device in a forward pass, which the others' scores are predicted from.

    Raises:
        ArgumentError: a number is not positive.
    """

    images: float
    devices: int
    rate: float
    row: float
    picture: float = PICTURE
    decoded: float = DECODED
    cores: float | None = None
    exact: float | None = None
    forward_rate: float | None = None

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise ArgumentError(f"{name}={value} must be positive.")
        if (self.exact is None) != (self.forward_rate is None):
            raise ArgumentError("exact and forward_rate belong together: give both for amortised scores.")
        if self.exact is not None and self.exact > self.images:
            raise ArgumentError(f"exact={self.exact:,.0f} images are more than all {self.images:,.0f}.")

    @property
    def images_per_second(self) -> float:
        """Of all devices, which have to be decoded in the same time; of the faster stage, where there are two."""
        return self.devices * max(self.rate, self.forward_rate or 0.0)

    @property
    def decodings(self) -> float:
        """Pictures that are read and decoded; those that are predicted and scored exactly, twice."""
        return self.images + (self.exact or 0.0)

    @property
    def hours(self) -> float:
        """From the first image to the last."""
        exactly = self._seconds(self.images if self.exact is None else self.exact, self.rate)
        predicted = 0.0 if self.forward_rate is None else self._seconds(self.images, self.forward_rate)
        return (exactly + predicted) / 3600

    def _seconds(self, images: float, rate: float) -> float:
        return images / self._bounded(self.devices * rate)

    def _bounded(self, images_per_second: float) -> float:
        """As fast as the pictures are decoded, at most."""
        return images_per_second if self.cores is None else min(images_per_second, self.cores * self.decoded)

    @property
    def decoding_decides(self) -> bool:
        """Whether devices wait for pictures, in the faster stage."""
        return self._bounded(self.images_per_second) < self.images_per_second

    @property
    def device_hours(self) -> float:
        """Of all devices."""
        return self.devices * self.hours

    @property
    def decoding_cores(self) -> float:
        """Cores that are busy with decoding."""
        return self.images_per_second / self.decoded


def bytes_of_a_row(schema: pa.Schema) -> float:
    """Of a table as jobs write it, with values that do not repeat."""
    rng = np.random.default_rng(0)

    def column(field: pa.Field) -> pa.Array:
        if pa.types.is_string(field.type):
            words = [_KEY.format(n) for n in range(_SAMPLE)] if field.name == "key" else ["float32"] * _SAMPLE
            return pa.array(words, field.type)
        if pa.types.is_boolean(field.type):
            return pa.array(rng.random(_SAMPLE) < 0.05)
        if pa.types.is_integer(field.type):
            return pa.array(np.zeros(_SAMPLE, int), field.type)
        size = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 1
        values = pa.array(rng.standard_normal(_SAMPLE * size, np.float32))  # what scores are computed in
        if size == 1:
            return values.cast(field.type)
        return pa.FixedSizeListArray.from_arrays(values.cast(field.type.value_type), size)

    table = pa.Table.from_arrays([column(field) for field in schema], schema=schema)
    return len(parquet_bytes(table)) / _SAMPLE
