"""What a command prints and how it ends: in any encoding, into a closed pipe, with a damaged cache."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from makes import TINIEST_VIT
from PIL import Image

from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.errors import JobError, printable
from jepa_jax.paths import write_output

SPEC = EncoderSpec("tiny", "dinov2", TINIEST_VIT, PreprocessSpec(resize_shortest=32, crop=28))
NAMES = ("écran-画像.png", "\u202egnp.exe.png", "b\x1b[31m.png", "plain.png")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "jepa_jax", *map(str, arguments)]
    settings = os.environ | {"COLUMNS": "200"} | environment
    return subprocess.run(command, capture_output=True, env=settings, check=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_encoder(Encoder(SPEC, initialize_params(TINIEST_VIT, 0)), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("画像")
    rng = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_name_that_an_encoding_does_not_have_is_escaped(
    encoding: str, pictures: Path, checkpoint: Path, tmp_path: Path
):
    output = tmp_path / "出力"
    done = run("score", pictures, "--model", checkpoint, "--output", output, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode(encoding)
    assert "4 images scored" in said
    assert "-画像.png" in said if encoding == "utf-8" else r"-\u753b\u50cf.png" in said
    assert "\x1b[31m" not in said
    assert r"\u202egnp.exe.png" in said
    if encoding == "latin-1":
        shown = run("report", output, PYTHONIOENCODING="ascii")
        assert shown.returncode == 0, shown.stderr
        command = ("select", tmp_path / "存在しない", "--rarest", "1", "--output", tmp_path / "selection")
        missing = run(*command, PYTHONIOENCODING="ascii")
        assert missing.returncode == 2
        assert b"Traceback" not in missing.stderr


def test_a_reader_that_has_had_enough_ends_nothing(pictures: Path, checkpoint: Path, tmp_path: Path):
    command = [sys.executable, "-m", "jepa_jax", "score", pictures, "--output", tmp_path / "out"]
    command += ["--model", checkpoint, "--shard-size", "1", "--log-json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert process.wait() == 0
    assert b'"complete": true' in (tmp_path / "out" / "manifest.json").read_bytes()


def test_an_output_that_is_a_link_or_a_pipe_stays_one(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("pipe", "link", "file"):
        write_output(tmp_path / name, name.encode())
    assert os.read(reader, 9) == b"pipe"
    os.close(reader)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "pipe"]
    with pytest.raises(JobError, match="cannot be written: Is a directory"):
        write_output(tmp_path, b"")


def test_a_terminal_of_no_width_is_printed_to():
    done = run("models", COLUMNS="0")
    assert b"dinov2-small" in done.stdout


def test_names_are_printable():
    assert printable("écran-画像.png") == "écran-画像.png"
    assert printable("a\u202eb\x1b\n\udcff") == r"a\u202eb\x1b\n\udcff"


def test_a_job_without_a_score_says_so_by_its_status(checkpoint: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"no picture")
    command = ("score", tmp_path / "in", "--model", checkpoint, "--output", tmp_path / "out")
    done = run(*command)
    assert done.returncode == 3, done.stderr
    assert b"0 images scored, 2 failed" in done.stdout
    assert run(*command).returncode == 3  # as often as it is asked
    Image.new("RGB", (40, 40), "red").save(tmp_path / "in" / "a.png")
    assert run(*command, "--retry-failed", "--processes", "2").returncode == 0


def test_debug_shows_where_an_error_arose(checkpoint: Path, tmp_path: Path):
    command = ("score", tmp_path / "none", "--model", checkpoint, "--output", tmp_path / "out")
    plain, long = run(*command), run("--debug", *command)
    assert plain.returncode == long.returncode == 2
    assert b"Traceback" not in plain.stderr
    assert b"Traceback" in long.stderr
    assert long.stderr.endswith(plain.stderr)
    program = "import sys; sys.modules['jepa_jax.jobs'] = None; from jepa_jax.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "a package is missing or does not fit" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_file_of_the_cache_is_replaced(
    pictures: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)  # which would go before the folder of this test
    settings = {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def score(name: str) -> str:
        done = run("score", pictures, "--model", checkpoint, "--output", tmp_path / name, **settings)
        assert done.returncode == 0, done.stderr
        return done.stderr.decode()

    def entries() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "jepa_jax" / "compiled").glob("*-cache")}

    score("first")
    sound = entries()
    assert sound
    for i, (name, content) in enumerate(sound.items()):
        broken = (b"", b"no program", content[: len(content) // 2], content[:-9] + b"\0" + content[-8:])[i % 4]
        (tmp_path / "jepa_jax" / "compiled" / name).write_bytes(broken)
    assert "Error reading" not in score("second")
    found = entries()
    assert found.keys() == sound.keys()
    assert all(len(content) > 0.9 * len(sound[name]) for name, content in found.items())
    assert "Error reading" not in score("third")
    assert entries() == found
