"""The report in a curator's hands: search, threshold, ticks, export, pages, near-duplicates, what is plainly wrong."""

import dataclasses
from pathlib import Path

import browser
import numpy as np
import pytest
from PIL import Image, ImageFilter
from report_pages import click, enter, open_list, texts, unpacked
from scored_sets import SPEC

from jepa_jax.analysis.report import ReportOptions, build_report
from jepa_jax.analysis.report.charts import MINUS
from jepa_jax.analysis.report.explorer import listing
from jepa_jax.analysis.report.looks import faults_of
from jepa_jax.analysis.report.near_duplicates import near_duplicates
from jepa_jax.images import open_source
from jepa_jax.images.natural import natural_pictures
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.reading import read_table
from jepa_jax.scored.table import ScoreTable

COUNT = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with 1/f spectra; some of them dark, blurred, tiny or blank, and three copies of one."""
    folder = tmp_path_factory.mktemp("curated")
    for i, values in enumerate(natural_pictures(COUNT, 64)):
        picture = Image.fromarray(values).resize((200, 160))
        if i in (1, 2):
            picture = picture.point([value // 8 for value in range(256)] * 3)
        elif i == 3:
            picture = picture.filter(ImageFilter.GaussianBlur(12))
        elif i == 4:
            picture = picture.resize((12, 10))
        elif i == 5:
            picture = Image.new("RGB", (200, 160), "white")
        picture.save(folder / f"{'ab'[i % 2]}-{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> ScoreTable:
    """Scores -0 to -119 by the number in the name; half of them predicted, with intervals of 10 nats."""
    keys = np.array([path.name for path in sorted(folder.iterdir())], object)
    number = np.array([int(key[2:5]) for key in keys])
    embedding = np.random.default_rng(0).normal(size=(COUNT, 16)).astype(np.float32)
    same = np.isin(number, (10, 50, 90))
    embedding[same] = embedding[same][0] + 0.001 * embedding[same]
    predicted = number % 2 == 0
    ends = np.stack([-number - 5.0, -number + 5.0], axis=1)
    ends[~predicted] = np.nan
    ends[number == 8] = [-np.inf, np.inf]
    return ScoreTable(
        "curated",
        str(folder),
        keys,
        {"score": -number.astype(float)},
        embedding=embedding,
        groups={"method": np.where(predicted, "amortised", "exact").astype(object)},
        intervals=ends,
        unfamiliar=number == 8,
    )


@pytest.fixture(scope="module")
def text(table: ScoreTable, folder: Path) -> str:
    source = open_source(folder)
    reader = ImageReader(source, {key: i for i, key in enumerate(source.keys)}, SPEC.preprocess)
    options = ReportOptions(group_by="^([ab])-", extremes=20, per_shelf=3)
    return build_report([table], options, readers={"curated": reader})


@pytest.fixture(scope="module")
def page(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "report.html"
    target.write_text(text)
    return target


def found(chromium: browser.Browser) -> str:
    return texts(chromium, "#found")[0]


def names(chromium: browser.Browser) -> list[str]:
    return texts(chromium, "#entries .name")


def test_search_threshold_and_order(chromium: browser.Browser, page: Path):
    open_list(chromium, page)
    assert found(chromium) == "120 of 120 images found, 0 ticked"
    assert names(chromium)[:2] == ["b-119.png", "a-118.png"]
    assert len(names(chromium)) == 48
    click(chromium, "#next")
    click(chromium, "#next")
    assert texts(chromium, "#page") == ["page 3 of 3"]
    assert names(chromium)[-1] == "a-000.png"
    enter(chromium, "search", "A-0")
    assert found(chromium).startswith("50 of 120")
    enter(chromium, "to", "-90")
    assert names(chromium) == ["a-098.png", "a-096.png", "a-094.png", "a-092.png", "a-090.png"]
    enter(chromium, "from", "-95.5")
    enter(chromium, "order", "typical")
    assert names(chromium) == ["a-090.png", "a-092.png", "a-094.png"]
    enter(chromium, "search", "nothing is called so")
    assert found(chromium).startswith("0 of 120")
    for field in ("search", "from", "to"):
        enter(chromium, field, "")
    enter(chromium, "order", "key")
    enter(chromium, "group", "1")
    assert names(chromium)[:2] == ["b-001.png", "b-003.png"]
    enter(chromium, "only", "dark")
    assert names(chromium) == ["b-001.png"]


def test_ticked_keys_leave_by_a_file_and_by_the_clipboard(chromium: browser.Browser, page: Path, tmp_path: Path):
    open_list(chromium, page)
    chromium.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    chromium.events.clear()
    assert chromium.evaluate("document.getElementById('download').disabled")
    enter(chromium, "search", "11")
    click(chromium, "#tick-found")
    assert found(chromium) == "11 of 120 images found, 11 ticked"
    enter(chromium, "search", "")
    click(chromium, "#entries li:first-child input")
    assert "10 ticked" in found(chromium)
    enter(chromium, "only", "ticked")
    assert len(names(chromium)) == 10
    click(chromium, "#download")
    chromium.evaluate("new Promise(done => setTimeout(done, 500))")
    expected = [f"{'ab'[i % 2]}-{i:03d}.png" for i in (*range(118, 109, -1), 11)]
    assert (tmp_path / "keys.txt").read_text() == "".join(f"{key}\n" for key in expected)
    click(chromium, "#copy")
    chromium.evaluate("new Promise(done => setTimeout(done, 100))")
    assert "copied" in found(chromium) or texts(chromium, "#taken") is not None
    if "copied" not in found(chromium):
        assert chromium.evaluate("document.getElementById('taken').value").split() == expected
    click(chromium, "#tick-none")
    assert found(chromium).endswith(" 0 ticked")
    assert chromium.complaints() == []
    assert [address for address in chromium.requests() if not address.startswith("blob:")] == []


def test_a_picture_enlarges_by_keyboard_and_says_all(chromium: browser.Browser, page: Path, folder: Path):
    open_list(chromium, page, width=400, dark=True)
    enter(chromium, "search", "a-090")
    chromium.evaluate("document.querySelector('#entries button').focus()")
    chromium.press("Enter")
    assert chromium.evaluate("document.getElementById('enlarged').open")
    said = texts(chromium, "#enlarged dl")[0]
    for words in (
        f"score{MINUS}90.0 nats",
        "predicted from one forward pass",
        f"{MINUS}95.0 to {MINUS}85.0",
        "2 near-duplicates",
        "a-050.png",
    ):
        assert words in said
    assert chromium.evaluate("document.getElementById('enlarged-open').hidden")  # not among the ends
    chromium.evaluate("document.getElementById('enlarged').close()")
    enter(chromium, "search", "a-118")
    chromium.evaluate("document.querySelector('#entries button').focus()")
    chromium.press("Enter")
    link = chromium.evaluate("document.getElementById('enlarged-open').href")
    assert link == (folder / "a-118.png").as_uri()
    assert chromium.evaluate("document.querySelector('#enlarged img').naturalWidth") == 200
    chromium.press("Escape")
    chromium.send("Input.dispatchKeyEvent", type="rawKeyDown", key="Escape", windowsVirtualKeyCode=27)
    assert not chromium.evaluate("document.getElementById('enlarged').open")
    assert chromium.evaluate("document.activeElement.getAttribute('aria-label')") == "Enlarge a-118.png"
    click(chromium, "#gallery .tile button")
    assert texts(chromium, "#enlarged-key") == ["b-119.png"]
    click(chromium, "#enlarged-tick")
    assert "1 ticked" in found(chromium)
    assert chromium.evaluate("document.documentElement.scrollWidth") == 400


def test_intervals_and_methods_are_shown(chromium: browser.Browser, page: Path, text: str):
    assert "60 exact, 60 predicted from one forward pass; 1 of unfamiliar images" in text
    open_list(chromium, page)
    enter(chromium, "only", "predicted")
    assert found(chromium).startswith("60 of 120")
    assert texts(chromium, "#entries .facts")[0] == f"{MINUS}118.0 at 1.3%, {MINUS}123.0 to {MINUS}113.0"
    assert chromium.evaluate("document.querySelectorAll('#entries .interval').length") == 48
    enter(chromium, "only", "unfamiliar")
    assert texts(chromium, "#entries .facts") == [f"{MINUS}8.0 at 92.9%, interval unknown"]


def test_near_duplicates_are_one_in_the_gallery_and_said_in_the_list(chromium: browser.Browser, page: Path, text: str):
    facts = unpacked(text)
    assert [[facts["keys"][row] for row in group] for group in facts["alike"]] == [
        ["a-090.png", "a-050.png", "a-010.png"]
    ]
    assert "3 in 1 group" in text
    assert "of near-duplicates only the rarest" in text
    open_list(chromium, page)
    enter(chromium, "only", "near-duplicates")
    assert names(chromium) == ["a-090.png", "a-050.png", "a-010.png"]
    enter(chromium, "once", "")
    assert names(chromium) == ["a-090.png"]


def test_points_say_which_image_they_are(chromium: browser.Browser, page: Path, table: ScoreTable):
    open_list(chromium, page)
    plot = "#complexity-0 .plot"
    chromium.evaluate(f"document.querySelector({plot!r}).focus()")
    chromium.press("ArrowRight")
    said = texts(chromium, f"{plot} .tip")[0]
    assert said.split("\u2069")[0].strip("\u2068") in set(table.keys)
    assert "bits, score" in said


def test_what_is_plainly_wrong_is_counted(text: str):
    rows = dict(zip(("dark", "blank", "blurred", "tiny"), (2, 1, 1, 1), strict=True))
    for word, count in rows.items():
        assert f'<th scope="row">{word}</th><td>{count}</td>' in text
    assert "all 120 images</bdi>" in text or "all 120 images were looked at" in text


def test_faults_of_photographs(photos: list[Path]):
    clean = 0
    for path in photos[:40]:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        clean += not faults_of(picture, 224)
        assert faults_of(picture.filter(ImageFilter.GaussianBlur(6)), 224) == ("blurred",)
        assert faults_of(picture.point([value // 6 for value in range(256)] * 3), 224) == ("dark",)
        assert "tiny" in faults_of(picture, 224, size=(90, 400))
    assert clean >= 39


def test_near_duplicates_are_found_whatever_else_is_there():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(3000, 24)).astype(np.float32) + 100
    scores = rng.normal(size=3000)
    copies = rng.choice(3000, (40, 2), replace=False)
    embedding[copies[:, 1]] = embedding[copies[:, 0]] + 0.02 * rng.normal(size=(40, 24)).astype(np.float32)
    embedding[5] = np.nan
    expected = {tuple(sorted(pair)) for pair in copies.tolist() if 5 not in pair}
    assert {tuple(sorted(group.tolist())) for group in near_duplicates(embedding, scores)} == expected
    assert all(scores[a] <= scores[b] for a, b in near_duplicates(embedding, scores))
    assert near_duplicates(embedding[:2], scores[:2]) == []


def test_names_that_turn_are_exported_as_they_are(table: ScoreTable):
    turned = dataclasses.replace(table, keys=np.array(["\u202egnp.exe", *table.keys[1:]], object))
    data = listing(turned, {}, set(), [], {}, None).data
    facts = unpacked(f'<script type="application/octet-stream" class="listing">{data}</script>')
    place = facts["keys"].index(r"\u202egnp.exe")
    assert facts["raw"] == {str(place): "\u202egnp.exe"}


def test_a_job_with_predicted_scores_is_read(scored_sets: dict[str, Path], tmp_path: Path):
    """The columns that an amortised job adds, null where a score is predicted or exact."""
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    directory = tmp_path / "amortised"
    shutil.copytree(scored_sets["smooth"], directory)
    (part,) = sorted((directory / "scores").iterdir())[:1]
    for other in sorted((directory / "scores").iterdir())[1:]:
        other.unlink()
    whole = pq.read_table(part)
    predicted = np.arange(whole.num_rows) % 2 == 0

    def hidden(name: str) -> pa.Array:
        return pa.array(whole[name].to_pylist(), whole.schema.field(name).type, mask=predicted)

    scores = whole["score"].to_numpy()
    for name in ("score_error", "listing_score", "log_volume_rank", "singular_values"):
        whole = whole.set_column(
            whole.column_names.index(name), pa.field(name, whole.schema.field(name).type), hidden(name)
        )
    for name, values in (("score_low", scores - 1), ("score_high", scores + 1)):
        whole = whole.append_column(name, pa.array(values, mask=~predicted))
    whole = whole.append_column("method", pa.array(np.where(predicted, "amortised", "exact").tolist()))
    whole = whole.append_column("unfamiliar", pa.array(predicted & (np.arange(len(scores)) < 3)))
    pq.write_table(whole, part)
    table = read_table(directory)
    assert len(table) == len(scores)
    assert table.failures == ()
    np.testing.assert_array_equal(table.predicted, predicted)
    assert table.intervals is not None
    np.testing.assert_allclose(table.intervals[predicted][:, 1] - table.intervals[predicted][:, 0], 2)
    assert table.null_directions == 2
    page = build_report([table])
    assert f"{int(predicted.sum())} images whose scores are predicted have no spectrum" in page
    assert unpacked(page)["predicted"]
