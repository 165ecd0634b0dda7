"""What was found on disk, compared with its table and not read yet; and the steps that every format shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert_weights.readers import TensorReader, file_digest, some
from convert_weights.safetensors_file import SafetensorsReader
from convert_weights.tables import LeftOut, Row, check_source, import_params, left_out_names
from convert_weights.torch_file import TorchReader
from jepa_jax.encoders import ENCODERS, Encoder, EncoderSpec, ViTSpec
from jepa_jax.encoders.parameters import named_arrays
from jepa_jax.errors import ArgumentError, CheckpointError

CHEAP_DEPTH = 256
"""So many blocks are named at once where they are missing; more than a file has tensors cannot be in it."""

SAFETENSORS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Source:
    """What was found, and compared with its table; the weights themselves are read when asked for.

    Attributes:
        spec: the encoder that it becomes.
        reader: its tensors.
        rows: the table that reads them.
        left_out: source tensors that are not needed, with the reasons.
        origin: format, files and their SHA-256, for the record.
        recipe: in words, where the preprocessing comes from.
    """

    spec: EncoderSpec
    reader: TensorReader
    rows: Sequence[Row]
    left_out: LeftOut
    origin: dict[str, Any]
    recipe: str

    @property
    def left_out_here(self) -> Mapping[str, str]:
        """What of ``left_out`` this source does hold: names by the reason, as a line each."""
        return {
            f"{some(names)}": reason for reason, names in left_out_names(self.reader, self.rows, self.left_out).items()
        }

    @property
    def encoder(self) -> Encoder:
        """The encoder, read anew each time: a source holds no weights, so that whoever drops the encoder frees them.

        Raises:
            CheckpointError: a value is not finite.
        """
        params = import_params(self.reader, self.rows, self.spec.vit, self.spec.kernel_dtype)
        encoder = Encoder(self.spec, params)
        for name, array in named_arrays(params):
            bad = int(np.sum(~np.isfinite(np.asarray(array))))
            if bad:
                raise CheckpointError(
                    f"{self.reader.path}: {bad} values of {name} are not finite; download the weights again."
                )
        return encoder


def described_spec(described_by: Path, **fields: Any) -> EncoderSpec:
    """A spec of what a description says; what cannot be together is the description's fault."""
    try:
        return EncoderSpec(**fields)
    except ArgumentError as error:
        raise CheckpointError(f"{described_by.parent}: {error}") from error


def open_file(file: Path) -> TensorReader:
    """A file of weights by its suffix."""
    return SafetensorsReader(file) if file.suffix == SAFETENSORS_SUFFIX else TorchReader(file)


def check_depth(vit: ViTSpec, reader: TensorReader, field: str) -> None:
    """Refuse a depth that the file cannot hold, before a table of so many blocks is written down."""
    held = len(list(reader.names()))
    if vit.depth > max(held, CHEAP_DEPTH):
        raise CheckpointError(f"{field} is {vit.depth}, but {reader.path} holds {held} tensors in all.")


def same_architecture(known: ViTSpec, found: ViTSpec) -> bool:
    """Whether two specs are of the same weights."""
    # How positions are resized depends on whose code reads the weights, not on them.
    return dataclasses.replace(known, position_resize=found.position_resize) == found


def known_spec(vit: ViTSpec, name: str | None, config: Path) -> EncoderSpec | None:
    """The known encoder that a configuration describes.

    Several encoders share an architecture (all CLIPs of one size do), and a configuration does not say which of
    them it is: then only a name tells, and without one the encoder stays unknown.
    """
    matching = {spec.name: spec for spec in ENCODERS.values() if same_architecture(spec.vit, vit)}
    if name in ENCODERS and name not in matching:
        described = f", which is {' or '.join(map(repr, matching))}." if matching else ": no known architecture."
        raise ArgumentError(f"model {name!r} is not what {config} describes{described}")
    if name is not None:
        return matching.get(name)
    return next(iter(matching.values())) if len(matching) == 1 else None


def compared(
    spec: EncoderSpec, reader: TensorReader, rows: Sequence[Row], left_out: LeftOut, source_format: str, recipe: str
) -> Source:
    """A source whose header is what its table expects."""
    check_source(reader, rows, left_out)
    files = {file.name: file_digest(file) for file in reader.files()}
    return Source(spec, reader, rows, left_out, {"format": source_format, "sha256": files}, recipe)
