"""A disk that is away is the machine's fault: the job stops, no image is blamed, and the same command goes on."""

import dataclasses
import errno
import os
from pathlib import Path

import pytest
from job_pairs import draw_pictures
from jobs_shared import Silent, failures, table, tiny_encoder

import jepa_jax as jj
from jepa_jax.images.sources import Records
from jepa_jax.images.sources.records import read_file
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.measured_noise import noise_of_first_images

OPTIONS = JobOptions(batch_size=4, shard_size=4)


def listed(folder: Path, names: list[str]) -> Records:
    (folder / "list.csv").write_text("path\n" + "".join(f"{name}\n" for name in names))
    return open_source(folder / "list.csv")


@pytest.fixture
def disks(tmp_path: Path) -> list[str]:
    """Pictures on two disks; their names."""
    for seed, disk in enumerate(("here", "disk")):
        draw_pictures(tmp_path / disk / "images", 10, seed)
    return [f"{disk}/images/{i:03d}.png" for disk in ("here", "disk") for i in range(10)]


@pytest.mark.parametrize(("left", "workers"), [("nothing", 1), ("mount point", 0), ("link", 0), ("links to it", 0)])
def test_a_disk_that_is_away_stops_the_job(left: str, workers: int, tmp_path: Path, disks: list[str]):
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    if left == "links to it":
        (tmp_path / "links").mkdir()
        for i, name in enumerate(disks):
            (tmp_path / "links" / f"{i:02d}.png").symlink_to(tmp_path / name)
        disks = [f"links/{i:02d}.png" for i in range(20)]
    if left == "link":
        disk.rename(tmp_path / "mounted")
        disk.symlink_to(tmp_path / "mounted")
        disk = tmp_path / "mounted"
    source = listed(tmp_path, disks)
    disk.rename(elsewhere)
    if left == "mount point":
        disk.mkdir()
    options = dataclasses.replace(OPTIONS, workers=workers)
    with pytest.raises(jj.JobError, match=r"10 of the 20 records of .* lie in it: no image is to blame"):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options)
    assert not (tmp_path / "out" / "_failures").exists()
    if left == "mount point":
        disk.rmdir()
    elsewhere.rename(disk)
    summary = run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options)
    assert (summary.scored, summary.failed) == (20, 0)
    assert table(tmp_path / "out")["key"].to_pylist() == disks


def test_records_that_are_gone_for_good_can_be_taken_out(tmp_path: Path, disks: list[str]):
    source = listed(tmp_path, disks)
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    with pytest.raises(jj.JobError, match="take its records out of the input"):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), OPTIONS)
    summary = run_job(tiny_encoder(), listed(tmp_path, disks[:10]), tmp_path / "out", Silent(), OPTIONS)
    assert (summary.scored, summary.failed) == (10, 10)


def test_a_few_names_that_lead_nowhere_are_the_lists_fault(tmp_path: Path, disks: list[str]):
    names = [*disks, "nowhere/a.png", "nowhere/b.png", "here/images/none.png"]
    summary = run_job(tiny_encoder(), listed(tmp_path, names), tmp_path / "out", Silent(), OPTIONS)
    assert (summary.scored, summary.failed) == (20, 3)
    assert set(failures(tmp_path / "out").values()) == {"it cannot be read: No such file or directory"}


@dataclasses.dataclass
class Failing:
    """A reader whose machine fails at one file."""

    number: int
    name: str

    def __call__(self, path: str) -> bytes:
        if path.endswith(self.name):
            raise OSError(self.number, os.strerror(self.number))
        return read_file(path)


def test_a_fault_stops_the_measuring_of_noise_as_well(tmp_path: Path):
    source = open_source(draw_pictures(tmp_path / "in", 3))
    failing = dataclasses.replace(source, reader=Failing(errno.ESTALE, "000.png"))
    with pytest.raises(jj.JobError, match=r"'000\.png': .*No image is to blame"):
        noise_of_first_images(tiny_encoder(), failing, JobOptions(noise_images=2))
