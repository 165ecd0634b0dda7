"""Which process computes which part, with nothing between them but the output directory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_pairs import draw_pictures as pictures_in
from jobs_shared import Silent, table, tiny_encoder

import jepa_jax as jj
from jepa_jax import paths
from jepa_jax.jobs import JobInterrupted, JobOptions, open_source, run_job
from jepa_jax.jobs.processes import team
from jepa_jax.jobs.processes.team import CLAIMS, Deal, Team, team_of

OPTIONS = JobOptions(batch_size=2, shard_size=2)


class Table:
    """A table of so many parts, and who wrote each."""

    def __init__(self, count: int):
        self.writer: dict[int, str] = {}
        self.count = count

    def missing(self) -> list[int]:
        return [part for part in range(self.count) if part not in self.writer]

    def written(self) -> set[int]:
        return set(self.writer)


def on_machine(name: str, directory: Path, members: Team, parts: Table, monkeypatch: pytest.MonkeyPatch) -> Deal:
    with monkeypatch.context() as there:
        there.setattr(team.socket, "gethostname", lambda: name)
        return Deal(directory, parts.missing(), members, parts.written)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_part_is_dealt_once_whoever_asks_next(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = Table(20)
    deals = [on_machine(f"m{i}", tmp_path, Team(i, count), parts, monkeypatch) for i in range(count)]
    for deal in deals:
        deal.__enter__()
    asking = [deal.now() for deal in deals]
    while asking:
        for mine, member in zip(list(asking), list(range(len(asking))), strict=True):
            part = next(mine, None)
            if part is None:
                asking.remove(mine)
            else:
                assert part not in parts.writer
                parts.writer[part] = str(member)
    assert parts.missing() == []
    assert not any(deal.anything_left() for deal in deals)
    assert not any(deal.alone for deal in deals) or count == 1
    for deal in deals:
        deal.__exit__()
    deals[0].clear()
    assert list((tmp_path / CLAIMS).iterdir()) == []


@contextlib.contextmanager
def two_deals(directory: Path, parts: Table) -> Iterator[tuple[Deal, Deal]]:
    """Two processes' of one job, the first of which has done all when the second one comes to ask."""
    with (
        Deal(directory, parts.missing(), Team(0, 2), parts.written) as first,
        Deal(directory, parts.missing(), Team(1, 2), parts.written) as late,
    ):
        parts.writer |= dict.fromkeys(first.now(), "first")
        yield first, late


def test_a_process_that_comes_late_to_a_finished_job_computes_nothing(tmp_path: Path):
    with two_deals(tmp_path, Table(5)) as (first, late):
        first.clear()
        assert list(late.now()) == []
        assert not late.anything_left()


def test_a_job_that_is_cleared_while_another_process_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts, link = Table(3), os.link
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / f".part-00001.json.1.{team.socket.gethostname()}-{2**22 + 5}.tmp").touch()  # it was killed
    with two_deals(tmp_path, parts) as (first, late):

        def clear_and_link(temporary: str, path: Path) -> None:
            first.clear()
            link(temporary, path)

        monkeypatch.setattr(paths.os, "link", clear_and_link)
        assert list(late.now()) == []  # nor does it fail
    assert os.listdir(tmp_path / CLAIMS) == []


@pytest.mark.parametrize("creates", [True, False], ids=["created", "only-renamed"])
def test_the_same_in_a_store(creates: bool, monkeypatch: pytest.MonkeyPatch):
    directory, parts = paths.to_path("memory://cleared"), Table(3)
    store, _ = paths.store_of(directory)
    put = store.pipe_file
    monkeypatch.setattr(paths, "SETTLED", 0.0)
    with two_deals(directory, parts) as (first, late):

        def put_and_clear(name: str, data: bytes, **how: str) -> None:
            first.clear()
            if how and not creates:
                raise TypeError("pipe_file() got an unexpected keyword argument 'mode'")
            put(name, data, **how)
            first.clear()

        monkeypatch.setattr(store, "pipe_file", put_and_clear)
        assert list(late.now()) == []
        monkeypatch.undo()
    assert paths.names_in(directory / CLAIMS) == []


def test_own_parts_come_first_and_the_others_from_the_end():
    assert Team(1, 3).order([0, 1, 2, 4, 5, 7, 9]) == [1, 4, 7, 9, 5, 2, 0]


def test_the_parts_of_a_process_that_ended_are_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = Table(6)
    with on_machine("a", tmp_path, Team(0, 2), parts, monkeypatch) as lost:
        assert [next(lost.now()), next(lost.now())] == [0, 2]
    with on_machine("b", tmp_path, Team(1, 2), parts, monkeypatch) as deal:
        assert list(deal.now()) == [1, 3, 5, 4, 2, 0]


def test_the_parts_of_a_machine_that_is_silent_are_taken_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(team, "BEAT", 3600.0)
    parts = Table(4)
    with on_machine("a", tmp_path, Team(0, 2), parts, monkeypatch) as lost:
        assert next(lost.now()) == 0
        with on_machine("b", tmp_path, Team(1, 2), parts, monkeypatch) as deal:
            assert list(deal.now()) == [1, 3, 2]
            parts.writer |= dict.fromkeys((1, 2, 3), "b")
            assert deal.anything_left()
            assert list(deal.now()) == []  # its process may be at work
            monkeypatch.setattr(team, "LOST_AFTER", 0.0)
            time.sleep(0.01)
            assert list(deal.now()) == [0]


def test_a_sign_of_life_keeps_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(team, "BEAT", 0.05)
    monkeypatch.setattr(team, "LOST_AFTER", 1.0)
    parts = Table(2)
    with on_machine("a", tmp_path, Team(0, 2), parts, monkeypatch) as busy:
        assert next(busy.now()) == 0
        with on_machine("b", tmp_path, Team(1, 2), parts, monkeypatch) as deal:
            assert list(deal.now()) == [1]
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline:
                assert list(deal.now()) == []
                time.sleep(0.2)


def test_a_process_that_was_killed_here_leaves_its_parts_to_the_next(tmp_path: Path):
    parts = Table(2)
    (tmp_path / CLAIMS).mkdir()
    holder = {"process": 0, "machine": team.socket.gethostname(), "pid": 2**22 + 5, "token": "gone"}
    (tmp_path / CLAIMS / "part-00000.json").write_text(json.dumps(holder))
    (tmp_path / CLAIMS / "part-00001.json").write_text("{")  # was cut off
    with Deal(tmp_path, parts.missing(), Team(), parts.written) as deal:
        assert list(deal.now()) == [0, 1]


def test_a_job_that_ended_in_a_process_that_lives_on_leaves_its_parts(tmp_path: Path):
    """As in a notebook: the process is there, its job's sign of life is not."""
    parts = Table(2)
    (tmp_path / CLAIMS).mkdir()
    holder = {"process": 0, "machine": team.socket.gethostname(), "pid": os.getppid(), "token": "ended"}
    (tmp_path / CLAIMS / "part-00000.json").write_text(json.dumps(holder))
    holder |= {"pid": os.getpid(), "token": "of an earlier process of this number"}
    (tmp_path / CLAIMS / "part-00001.json").write_text(json.dumps(holder))
    (tmp_path / CLAIMS / f"alive-{holder['token']}").write_text("7")  # it was killed
    with Deal(tmp_path, parts.missing(), Team(), parts.written) as deal:
        assert list(deal.now()) == [0, 1]
        (tmp_path / CLAIMS / "part-00000.json").write_text(json.dumps(holder | {"pid": os.getppid(), "token": "busy"}))
        (tmp_path / CLAIMS / "alive-busy").write_text("1")
        assert deal.anything_left()
        assert list(deal.now()) == [1]  # of a living process at work it keeps away


def test_a_process_that_waits_for_another_heeds_a_signal(tmp_path: Path):
    source = open_source(pictures_in(tmp_path / "in", 4))
    claims = tmp_path / "out" / CLAIMS
    holder = {"process": 0, "machine": "elsewhere", "pid": 1, "token": "busy"}

    class Watcher(Silent):
        def note(self, message: str) -> None:
            if (claims / "alive-busy").exists():
                return
            (claims / "part-00001.json").write_text(json.dumps(holder))
            (claims / "alive-busy").write_text("0")
            threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with pytest.raises(JobInterrupted):
        run_job(tiny_encoder(), source, tmp_path / "out", Watcher(), OPTIONS)
    assert [path.name for path in (tmp_path / "out" / "scores").iterdir()] == ["part-00000.parquet"]
    (claims / "alive-busy").unlink()
    assert run_job(tiny_encoder(), source, tmp_path / "out", Silent(), OPTIONS).resumed == 2


def test_a_process_that_sees_none_of_the_others_says_so(tmp_path: Path):
    notes: list[str] = []

    class Watcher(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    source = open_source(pictures_in(tmp_path / "in", 8))
    run_job(tiny_encoder(), source, tmp_path / "out", Watcher(), OPTIONS, Team(0, 2))
    assert "one and the same directory" in notes[-1]
    assert len(table(tmp_path / "out")) == 8


def test_who_a_process_is():
    assert team_of(None, None, {}) == Team()
    assert team_of(4, 2, {}) == Team(2, 4)
    slurm = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"}
    assert team_of(None, None, slurm | {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}) == Team(3, 4, "slurm-7.0")
    with pytest.raises(jj.ArgumentError, match="belong together"):
        team_of(4, None, {})
    with pytest.raises(jj.ArgumentError, match=r"process_id=4 must be from 0 to 3"):
        team_of(4, 4, {})


def test_processes_that_were_started_one_by_one_do_not_retry_failures(tmp_path: Path):
    source = open_source(pictures_in(tmp_path / "in", 2))
    with pytest.raises(jj.ArgumentError, match="give --retry-failed to one process alone"):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), JobOptions(retry_failed=True), Team(0, 2))
