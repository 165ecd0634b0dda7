"""Small inputs of every kind, and what opening them says."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import jepa_jax as jj
from jepa_jax.images import Records, open_source


def picture(red: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 10), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def listed(path: Path, text: str) -> Records:
    path.write_text(text)
    return open_source(path)


def refused(path: object, message: str) -> str:
    with pytest.raises(jj.ArgumentError, match=message) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)
