"""A job from tars on an S3 server of this machine to Parquet on it, killed again and again.

python -m benchmarks.stores --records 100000 --kills 20 --output DIR

The server is moto's. Every kill is `kill -9` of the launcher and all its processes, at a random moment; the next run
has another number of processes. In the end each key must be there once, and the scores those of single pictures.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.dataset as ds
from PIL import Image

from jepa_jax.encoders import Encoder, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.encoders.specs import EncoderSpec, ViTSpec
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.provenance import describe

BUCKET = "bucket"
SHARDS = 10
SIDE = 14
DISTINCT = 256
"""Pictures that differ; each stands many times in the tars, under keys of its own."""

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def tiny_encoder() -> Encoder:
    """Small enough that the store, and not the Jacobian, decides."""
    vit = ViTSpec(native_image_size=SIDE, patch_size=14, width=16, depth=1, heads=2, mlp_width=32)
    spec = EncoderSpec("stores", "dinov2", vit, PreprocessSpec(SIDE, SIDE))
    return Encoder(spec, initialize_params(vit, seed=0))


def pictures() -> list[bytes]:
    """PNGs of noise."""
    rng, found = np.random.default_rng(0), []
    for _ in range(DISTINCT):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(stream, "PNG", compress_level=1)
        found.append(stream.getvalue())
    return found


class Server:
    """The server in a process of its own; every line that it logs is a request."""

    def __init__(self):
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.requests: Counter[str] = Counter()
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._count, daemon=True).start()
        os.environ.update(KEYS | {"AWS_ENDPOINT_URL": self.address})

    def _count(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            for method in ("GET", "PUT", "HEAD", "DELETE", "POST"):
                if f"{method} /" in line:
                    self.requests[method] += 1

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def fill(store: Any, records: int) -> None:
    """Put the tars into the bucket."""
    images, each = pictures(), records // SHARDS
    for shard in range(SHARDS):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for i in range(each):
                data = images[(shard * each + i) % DISTINCT]
                member = tarfile.TarInfo(f"{i:06d}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        store.pipe_file(f"{BUCKET}/in/shard-{shard:03d}.tar", content.getvalue())


def run(records: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """The whole trial."""
    import s3fs

    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save_encoder(tiny_encoder(), place / "encoder")
        server = Server()
        try:
            store = s3fs.S3FileSystem(use_listings_cache=False)
            _until(lambda: store.mkdir(BUCKET))
            fill(store, records)
            server.requests.clear()
            return _trial(place, store, server, records, kills, rng)
        finally:
            server.close()


def _trial(place: Path, store: Any, server: Server, records: int, kills: int, rng: random.Random) -> dict[str, Any]:
    command = [sys.executable, "-m", "jepa_jax", "score", f"s3://{BUCKET}/in/shard-*.tar"]
    command += ["--output", f"s3://{BUCKET}/out", "--model", str(place / "encoder"), "--workers", "1"]
    command += ["--score-only", "--batch-size", "256", "--precision", "float32"]
    done, peaks, counts, begun, runs = 0, [], [], time.perf_counter(), []
    while True:
        count = (1, 2, 3, 2)[len(counts) % 4]
        counts.append(count)
        before, at = server.requests.total(), time.perf_counter()
        process = subprocess.Popen(
            [*command, "--processes", str(count)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        parts = _parts(store)
        wanted = parts + rng.randrange(1, 5) if done < kills else 10**9
        peak = 0
        while process.poll() is None and _parts(store) < wanted:
            peak = max(peak, _memory(process.pid))
            time.sleep(0.3)
        if process.poll() is None:
            time.sleep(rng.random())
            os.killpg(process.pid, signal.SIGKILL)
            for child in _family:
                if child.is_running():
                    child.kill()
            done += 1
        peaks.append(peak)
        runs.append(
            {
                "processes": count,
                "parts_before": parts,
                "parts_after": _parts(store),
                "seconds": round(time.perf_counter() - at, 1),
                "requests": server.requests.total() - before,
                "peak_mib_of_one_process": round(peak / 2**20),
            }
        )
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
        process.wait()
        if process.returncode == 0:
            break
        if process.returncode > 0 and process.returncode != 137:
            raise RuntimeError(process.stderr.read().decode() if process.stderr else "")
    return _checked(store, records) | {
        "records": records,
        "kills": done,
        "seconds": round(time.perf_counter() - begun, 1),
        "requests": dict(server.requests),
        "requests_in_all": server.requests.total(),
        "runs": runs,
    }


def _checked(store: Any, records: int) -> dict[str, Any]:
    """What the table holds: every key once, equal pictures with equal scores."""
    found = ds.dataset(f"{BUCKET}/out/scores", filesystem=store).to_table(columns=["key", "score", "place"])
    keys = found["key"].to_pylist()
    each = records // SHARDS
    wanted = {f"shard-{shard:03d}.tar/{i:06d}" for shard in range(SHARDS) for i in range(each)}
    scores = found["score"].to_numpy()
    picture = np.array([(int(key[6:9]) * each + int(key.rpartition("/")[2])) % DISTINCT for key in keys])
    spread = max(np.ptp(scores[picture == number]) for number in range(DISTINCT))
    manifest = json.loads(store.cat_file(f"{BUCKET}/out/manifest.json"))
    return {
        "lost": len(wanted.difference(keys)),
        "doubled": len(keys) - len(set(keys)),
        "complete": manifest["complete"],
        "largest_difference_of_equal_pictures_nats": float(spread),
        "left_behind": [name for name in store.find(f"{BUCKET}/out") if "_claims" in name or name.endswith(".tmp")],
    }


_family: list[psutil.Process] = []


def _memory(pid: int) -> int:
    """Resident bytes of the largest process of a job; the family is remembered, to be killed as a whole."""
    try:
        parent = psutil.Process(pid)
        _family[:] = [parent, *parent.children(recursive=True)]
        return max(member.memory_info().rss for member in _family)
    except psutil.NoSuchProcess:
        return 0


def _parts(store: Any) -> int:
    try:
        return len(store.ls(f"{BUCKET}/out/scores", detail=False))
    except FileNotFoundError:
        return 0


def _until(operation: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            operation()
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    result = describe() | run(options.records, options.kills)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}, indent=2))


if __name__ == "__main__":
    main()
