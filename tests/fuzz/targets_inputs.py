"""Inputs that are fuzzed: every file of an input is damaged, and what is left of it is opened, read and decoded."""

from __future__ import annotations

import io
import json
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import Target
from PIL import Image

from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.images import open_source
from jepa_jax.images.decoding import InputRecipe, decode_record
from jepa_jax.images.recipe import PreprocessSpec

RECIPE = InputRecipe(PreprocessSpec(resize_shortest=16, crop=16))


def read_all(path: Path) -> None:
    """Open an input and decode all of its records: each is a picture, or has a reason."""
    source = open_source(path)
    assert source.keys
    assert len(set(source.keys)) == len(source.keys) == len(source.locators)
    for index, key in enumerate(source.keys):
        key.encode()
        assert "\n" not in key
        decoded = decode_record(index, key, source.locators[index], source.reader, RECIPE)
        assert (decoded.inputs is None) == bool(decoded.reason)
        assert not decoded.no_fault_of_its_own, f"{key}: {decoded.reason}"


def picture(random: np.random.Generator) -> bytes:
    """A small PNG."""
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def npy(random: np.random.Generator, folder: Path) -> Path:
    """Three pictures, at times in Fortran order."""
    array = random.integers(0, 256, (3, 20, 24, 3), np.uint8)
    np.save(folder / "a.npy", np.asfortranarray(array) if random.random() < 0.2 else array)
    return folder / "a.npy"


def npz(random: np.random.Generator, folder: Path) -> Path:
    """Pictures and labels, stored or compressed."""
    save = np.savez if random.random() < 0.5 else np.savez_compressed
    save(folder / "a.npz", images=random.integers(0, 64, (3, 20, 24, 3), np.uint8), labels=np.arange(3))
    return folder / "a.npz"


def parquet(random: np.random.Generator, folder: Path) -> Path:
    """A list of files that are not there, in every compression."""
    table = pa.table({"path": [f"{i}.png" for i in range(50)], "key": [f"photo {i}" for i in range(50)]})
    compression = ["none", "snappy", "zstd", "gzip"][int(random.integers(4))]
    pq.write_table(table, folder / "a.parquet", compression=compression, use_dictionary=bool(random.integers(2)))
    return folder / "a.parquet"


def embedded(random: np.random.Generator, folder: Path) -> Path:
    """A table that holds its pictures, in groups of two, with or without checksums, keys and paths."""
    pictures = [picture(random) for _ in range(5)]
    cells = pictures if random.random() < 0.5 else [{"bytes": content, "path": None} for content in pictures]
    keys = {"key": [f"photo {i}" for i in range(5)]} if random.random() < 0.5 else {}
    compression = ["none", "snappy", "zstd", "gzip"][int(random.integers(4))]
    checksums, file = bool(random.integers(2)), folder / "b.parquet"
    table = pa.table({"image": cells, **keys})
    pq.write_table(table, file, row_group_size=2, compression=compression, write_page_checksum=checksums)
    return file


def saved(random: np.random.Generator, folder: Path) -> Path:
    """What `save_to_disk` leaves, in two batches."""
    cells = [{"bytes": picture(random), "path": None} for _ in range(5)]
    table = pa.table({"image": cells, "key": [f"photo {i}" for i in range(5)]})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}], "_split": None}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "Image"}}}))
    return folder


def csv(random: np.random.Generator, folder: Path) -> Path:
    """The same as text, with or without keys, by comma or semicolon."""
    separator = ",;"[int(random.integers(2))]
    columns = ["path", "key"][: int(random.integers(1, 3))]
    rows = [columns, *([f'"{i}.png"', f"é {i}"][: len(columns)] for i in range(20))]
    (folder / "a.csv").write_text("\n".join(map(separator.join, rows)))
    return folder / "a.csv"


def jsonl(random: np.random.Generator, folder: Path) -> Path:
    """The same as JSON Lines, some without keys."""
    rows = [{"path": f"{i}.png"} | ({"key": f"é {i}"} if random.random() < 0.5 else {}) for i in range(20)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "a.jsonl"


def txt(random: np.random.Generator, folder: Path) -> Path:
    """The same as text, by either end of line."""
    end = ["\n", "\r\n"][int(random.integers(2))]
    (folder / "a.txt").write_bytes("".join(f"é {i}.png{end}" for i in range(20)).encode())
    return folder / "a.txt"


def tar(random: np.random.Generator, folder: Path) -> Path:
    """Samples of a picture and its caption, some with long names, in every format of tar."""
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    with tarfile.open(folder / "a.tar", "w", format=formats[int(random.integers(3))]) as archive:
        for i in range(3):
            stem = f"{i}" if random.random() < 0.5 else f"{'long' * 12}/{'é' * 40}{i}"
            for name, content in ((f"{stem}.png", picture(random)), (f"{stem}.txt", b"caption")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return folder / "a.tar"


def array_record(random: np.random.Generator, folder: Path) -> Path:
    """Three pictures."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(folder / "a.array_record"), "group_size:1")
    for _ in range(3):
        writer.write(picture(random))
    writer.close()
    return folder / "a.array_record"


MAKES = (
    npy,
    npz,
    parquet,
    embedded,
    saved,
    csv,
    jsonl,
    txt,
    tar,
    *((array_record,) if find_spec("array_record") else ()),
)

TARGETS = tuple(Target(make.__name__, make, read_all, (ArgumentError, JobError)) for make in MAKES)
