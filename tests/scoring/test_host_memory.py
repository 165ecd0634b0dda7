"""What a computer has free, from the files that Linux shows of it, and its share for each process of a job."""

from pathlib import Path

import pytest

from jepa_jax.scoring.concurrency import concurrency_of
from jepa_jax.scoring.memory import PROCESSES, default_budget, free_host_bytes

MiB = 2**20


def linux(root: Path, *, available: int, limit: str | None = None, used: int = 0, cached: int = 0) -> Path:
    """A root with /proc/meminfo and, with a limit, a container's control group; sizes in MiB."""
    (root / "proc").mkdir()
    lines = (f"MemTotal: {64 * 2**20} kB", f"MemAvailable: {available * 1024} kB", "HugePages_Total: 0")
    (root / "proc/meminfo").write_text("\n".join(lines) + "\n")
    if limit is not None:
        group = root / "sys/fs/cgroup"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(limit + "\n")
        (group / "memory.current").write_text(f"{used * MiB}\n")
        (group / "memory.stat").write_text(f"anon 1\ninactive_file {cached * MiB}\nactive_file 5\n")
    return root


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"available": 8000}, 8000),
        ({"available": 8000, "limit": "max"}, 8000),
        ({"available": 8000, "limit": str(4000 * MiB), "used": 1500, "cached": 500}, 3000),
        ({"available": 2000, "limit": str(4000 * MiB), "used": 1500, "cached": 500}, 2000),
        ({"available": 8000, "limit": str(4000 * MiB), "used": 4100}, 0),
    ],
    ids=["no container", "container without a limit", "limit", "limit above what is free", "over the limit"],
)
def test_free_memory_is_the_systems_within_the_containers_limit(tmp_path, files, free):
    assert free_host_bytes(linux(tmp_path, **files)) == free * MiB


def test_elsewhere_it_is_all_there_is(tmp_path):
    assert free_host_bytes(tmp_path) > 2**30


def test_processes_of_a_job_share_cores_and_memory(monkeypatch):
    monkeypatch.setattr("jepa_jax.scoring.memory.free_host_bytes", lambda: 6000 * MiB)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv(PROCESSES, raising=False)
    assert (default_budget("cpu"), concurrency_of(64, "cpu")) == (3000 * MiB, 8)
    monkeypatch.setenv(PROCESSES, "3")
    assert (default_budget("cpu"), concurrency_of(64, "cpu")) == (1000 * MiB, 2)
    monkeypatch.setenv(PROCESSES, "20")
    assert concurrency_of(64, "cpu") == 1  # never none
