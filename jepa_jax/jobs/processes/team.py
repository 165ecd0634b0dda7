"""The processes of one job: how many, which one this is, and which parts each computes.

They need no connection to each other: the output directory is all that they share, and what lies there is the truth.

Parts are dealt by number. Process i of n begins with the missing parts whose number leaves i on division by n, and
then takes what is left of the others', from the end. Before a part is begun, a file is created that says whose it is:

    _claims/part-00003.json   process, machine and token of whoever computes part 3; only one can create it
    _claims/alive-TOKEN       a number that its process counts up every few seconds, and removes when it ends

A part that was claimed and never written is taken over by whoever has nothing else to do: at once where its job has
ended or, on this machine, its process was killed; else after `LOST_AFTER` seconds without a sign of life. That
is also how a lost process is noticed: its work is done by the others, and it costs them what it had in hand, at most
the parts that were open. A part may be computed twice (by a process that was only thought lost): both write the same.
It takes three small requests per part, and one per process every `BEAT` seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.paths import AnyPath, create, make_folder, names_to_clear, read_bytes, remove, runs, write_whole

CLAIMS = "_claims"
"""Folder of the claims, in the output directory."""

BEAT = 10.0
"""Seconds between two signs of life."""

LOST_AFTER = 60.0
"""Seconds without a sign of life after which a process of another machine counts as lost."""


_at_work: set[str] = set()
"""Tokens of this very process's own: a claim of its number with another token is of an earlier process."""


@dataclass(frozen=True)
class Team:
    """A process among the others.

    Attributes:
        index: of this process, from 0.
        count: of processes.
        run: of all that were started together, where whoever started them gave one; parts carry it.

    Raises:
        ArgumentError: there is no such process.
    """

    index: int = 0
    count: int = 1
    run: str | None = None

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ArgumentError(f"process_id={self.index} must be from 0 to {self.count - 1}, of num_processes.")

    @property
    def speaks(self) -> bool:
        """Whether this process tells what happens."""
        return self.index == 0

    def order(self, parts: Sequence[int]) -> list[int]:
        """Parts in the order in which this process takes them: its own, then the others' from the end."""
        mine = [part for part in parts if part % self.count == self.index]
        return mine + [part for part in reversed(parts) if part % self.count != self.index]


@dataclass(frozen=True)
class Holder:
    """Who has claimed a part."""

    process: int
    machine: str
    pid: int
    token: str


class Deal:
    """The parts that this process computes, one after another. While it is entered, it shows signs of life.

    Args:
        directory: of the job.
        missing: parts without a file, in order.
        team: this process among the others.
        written: names the parts that have a file by now.
        is_written: whether one has; by default as ``written`` names it.
    """

    def __init__(
        self,
        directory: AnyPath,
        missing: Sequence[int],
        team: Team,
        written: Callable[[], set[int]],
        is_written: Callable[[int], bool] | None = None,
    ):
        self._folder = directory / CLAIMS
        self._team, self._written = team, written
        self._is_written = is_written or (lambda part: part in written())
        self._dealt = tuple(missing)
        self._missing = list(missing)
        self._holder = Holder(team.index, socket.gethostname(), os.getpid(), secrets.token_hex(6))
        self._signs: dict[str, tuple[bytes, float]] = {}
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._show_life, name="alive", daemon=True)
        self._mine: set[int] = set()
        self._told: set[int] = set()

    def __enter__(self) -> Deal:
        if self._dealt:
            make_folder(self._folder)
            _at_work.add(self._holder.token)
            write_whole(self._alive(self._holder.token), b"0")
            self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._dealt:
            _at_work.discard(self._holder.token)
            self._ended.set()
            self._beating.join()
            with contextlib.suppress(Exception):  # whatever ended the job is what is told
                remove(self._alive(self._holder.token))

    def now(self) -> Iterator[int]:
        """Parts that this process may compute at once, each claimed when it is asked for."""
        for part in self._team.order(self._missing):
            if part not in self._mine and self._claim(part):
                self._mine.add(part)
                yield part

    def anything_left(self) -> bool:
        """Whether parts are missing still."""
        written = self._written()
        self._missing = [part for part in self._missing if part not in written]
        self._mine.difference_update(self._missing)  # somebody has removed them since: once more
        return bool(self._missing)

    def of_others(self) -> list[int]:
        """Parts that other processes have written since this was asked last."""
        found = sorted((self._written() & set(self._dealt)) - self._mine - self._told)
        self._told.update(found)
        return found

    @property
    def alone(self) -> bool:
        """Whether this process did all that was missing though others should be there."""
        return self._team.count > 1 and len(self._dealt) > self._team.count and self._mine.issuperset(self._dealt)

    def clear(self) -> None:
        """Remove all claims: the job is done. Another process may look into the folder, or claim, in this moment."""
        with ThreadPoolExecutor(8) as pool:  # a store answers many at once
            list(pool.map(lambda name: remove(self._folder / name), names_to_clear(self._folder)))

    def _claim(self, part: int) -> bool:
        path = self._folder / f"part-{part:05d}.json"
        data = json.dumps(vars(self._holder)).encode()
        if create(path, data):
            if not self._is_written(part):
                return True
            remove(path)  # it was done, and its claim removed with the whole job's
            return False
        holder = self._holder_of(path)
        if holder is not None and holder.token == self._holder.token:
            return True
        if (holder is not None and not self._is_gone(holder)) or part in self._written():
            return False
        write_whole(path, data)
        return True

    def _holder_of(self, path: AnyPath) -> Holder | None:
        try:
            return Holder(**json.loads(read_bytes(path)))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _is_gone(self, holder: Holder) -> bool:
        if holder.machine == self._holder.machine:
            here = holder.pid == os.getpid()
            if not (holder.token in _at_work if here else runs(holder.pid)):
                return True
        # Its process may live on, as a notebook's does, when its job has ended.
        try:
            sign = read_bytes(self._alive(holder.token))
        except FileNotFoundError:
            return True
        now = time.monotonic()
        if self._signs.get(holder.token, (None,))[0] != sign:
            self._signs[holder.token] = (sign, now)
        return now - self._signs[holder.token][1] > LOST_AFTER

    def _alive(self, token: str) -> AnyPath:
        return self._folder / f"alive-{token}"

    def _show_life(self) -> None:
        count = 0
        while not self._ended.wait(BEAT):
            count += 1
            with contextlib.suppress(JobError):  # a store or disk that is away: whoever writes a part says so
                write_whole(self._alive(self._holder.token), str(count).encode())


def team_of(num_processes: int | None, process_id: int | None, environment: Any = os.environ) -> Team:
    """Which process this is among those that were started together: as it was told, or as SLURM says; else alone.

    Raises:
        ArgumentError: only one of the two is given, or they do not fit.
    """
    if (num_processes is None) != (process_id is None):
        raise ArgumentError("num_processes and process_id belong together: give both, or neither.")
    if num_processes is not None and process_id is not None:
        return Team(process_id, num_processes, environment.get(RUN))
    if environment.get("SLURM_STEP_NODELIST") and "SLURM_PROCID" in environment:
        run = f"slurm-{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
        return Team(int(environment["SLURM_PROCID"]), int(environment.get("SLURM_NTASKS", "1")), run)
    return Team()


RUN = "JEPA_JAX_RUN"
"""Environment variable: one name for all processes that were started together."""
