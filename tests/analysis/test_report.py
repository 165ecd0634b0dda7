"""The report: in a real browser, in both themes, wide and narrow; its figures against NumPy; its size."""

import dataclasses
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import browser
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from report_pages import unpacked
from scored_sets import SPEC, VIT, Quiet

import jepa_jax as jj
from jepa_jax.analysis.agreement import agreement
from jepa_jax.analysis.report import ReportOptions, build_report
from jepa_jax.analysis.report.charts import Axis, number, round_values
from jepa_jax.analysis.report.figures import histogram
from jepa_jax.analysis.report.pictures import SIDE
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.images.videos import VideoFile
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.reading import read_table
from jepa_jax.scored.table import ScoreTable, only

PARTS = {"gallery": "#gallery .tile img", "histogram": "#histogram-0 .plot svg", "spectrum": "#spectrum-0 .plot svg"}


@pytest.fixture(scope="module")
def page(scored_sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of several sets and encoders, by the command."""
    target = tmp_path_factory.mktemp("report") / "report.html"
    directories = [str(scored_sets[name]) for name in ("smooth", "rough", "smooth-other")]
    command = [sys.executable, "-m", "jepa_jax", "report", *directories, "--output", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def photo_page(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a real job over all development photographs."""
    folder = tmp_path_factory.mktemp("photos")
    encoder = Encoder(SPEC, initialize_params(VIT, 0))
    options = JobOptions(columns=("singular_values",))
    run_job(encoder, open_source(photos[0].parent), folder / "scores", Quiet(), options)
    target = folder / "report.html"
    target.write_text(
        build_report([read_table(folder / "scores", name="photos")], ReportOptions(group_by=r"^n(\d\d)"))
    )
    return target


@pytest.mark.parametrize("which", ["page", "photo_page"])
def test_every_part_is_seen_in_both_themes_wide_and_narrow(
    which: str, chromium: browser.Browser, request: pytest.FixtureRequest, tmp_path: Path
):
    target: Path = request.getfixturevalue(which)
    chromium.events.clear()
    for width in (1400, 400):
        for dark in (False, True):
            chromium.open(target, width, dark)
            assert chromium.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
            for part, selector in PARTS.items():
                require_seen(chromium, selector, width, tmp_path / f"{part}.png", dark)
    assert chromium.complaints() == []
    assert set(chromium.requests()) == {target.as_uri()}


def require_seen(chromium: browser.Browser, selector: str, width: int, target: Path, dark: bool) -> None:
    """An element stands on the screen, whole and with a picture in it, on the theme's ground."""
    box = chromium.evaluate(
        f"(async () => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center', "
        "behavior: 'instant'}); if (e.decode) await e.decode(); await new Promise(requestAnimationFrame);"
        "const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })()"
    )
    left, top, right, bottom = box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= 900
    assert (right - left) * (bottom - top) > 4000
    with Image.open(chromium.picture(target)) as picture:
        pixels = np.asarray(picture.convert("L"), np.float64)
    assert np.std(pixels[int(top) : int(bottom), int(left) : int(right)]) > 4  # not one flat tone
    assert (np.median(pixels) < 64) == dark
    assert (np.median(pixels) > 192) != dark


def test_keyboard_theme_and_cursor(chromium: browser.Browser, page: Path):
    chromium.open(page, 1400, dark=False)
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 249, 246)"
    chromium.press("Tab")  # the skip link
    assert chromium.evaluate("document.activeElement.className") == "skip"
    chromium.press("Tab")
    assert chromium.evaluate("document.activeElement.id") == "theme"
    chromium.press("Enter")
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    chromium.evaluate("document.querySelector('#histogram-0 .plot').focus()")
    chromium.press("ArrowRight")
    assert "smooth" in chromium.evaluate("document.querySelector('#histogram-0 .tip').textContent")
    assert chromium.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


class Outline(HTMLParser):
    """What a screen reader walks through."""

    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_stands_alone_and_speaks(page: Path):
    text = page.read_text()
    outline = Outline()
    outline.feed(text)
    addresses = [a.get(name) for _, a in outline.tags for name in ("src", "href", "action", "srcset") if a.get(name)]
    assert all(address and address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert outline.all("html")[0]["lang"] == "en"
    assert len(outline.all("main")) == len(outline.all("h1")) == 1
    assert len(outline.all("nav")) == 1
    assert all(image.get("alt") for image in outline.all("img"))
    assert all(
        chart.get("aria-label") or chart.get("aria-hidden") or not chart.get("role") for chart in outline.all("svg")
    )
    assert len(outline.all("caption")) == len(outline.all("table"))
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {a["href"][1:] for a in outline.all("a") if a["href"]} <= set(ids)
    references = {word for _, a in outline.tags for word in (a.get("aria-labelledby") or "").split()}
    assert references <= set(ids)


@pytest.mark.parametrize("dark", [False, True])
def test_text_contrast_is_at_least_aa(dark: bool):
    style = (resources.files("jepa_jax.analysis.report") / "templates" / "report.css").read_text()
    block = re.findall(r":root(?:\[data-theme=\"dark\"\])? \{(.*?)\}", style, re.S)[int(dark)]
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        light, dim = sorted((luminance(colors[a]), luminance(colors[b])), reverse=True)
        return (light + 0.05) / (dim + 0.05)

    for ground in ("paper", "card"):
        assert min(contrast(text, ground) for text in ("ink", "soft", "accent")) >= 4.5
        lines = ("rare", "typical", "focus", *(f"set{i}" for i in range(6)))
        assert min(contrast(mark, ground) for mark in lines) >= 3  # graphics


def test_hostile_names_stay_text(tmp_path: Path):
    keys = np.array([f"<script>alert({i})</script>/\"'&.png" for i in range(20)], object)
    table = ScoreTable(
        "<b>set</b>", "/nowhere", keys, {"score": np.arange(20.0)}, failures=({"key": "</table>", "reason": "<i>"},)
    )
    text = build_report([table])
    assert "<script>alert" not in text
    assert "<b>set" not in text
    assert "</table></th>" not in text


TURNED = "\u202egnp.exe"
"""A name that turns what follows it around."""


def turned_table() -> ScoreTable:
    keys = np.array([f"{TURNED}-{i}.png" for i in range(20)], object)
    failures = ({"key": f"{TURNED}.jpg", "reason": f"a link to '{TURNED}'"},)
    scores = {"score": np.arange(20.0)}
    return ScoreTable(f"set {TURNED}", f"/nowhere/{TURNED}", keys, scores, failures=failures, groups={"by": keys})


def test_names_do_not_turn_what_stands_beside_them():
    other = dataclasses.replace(turned_table(), name="שלום", manifest={"pinned": {"encoder_digest": "another"}})
    text = build_report([turned_table(), other], ReportOptions(group_by="by"))
    assert "\u202e" not in text
    assert r"<bdi>\u202egnp.exe-0.png</bdi>" in text
    within_tags = re.sub(r"<bdi>[^<]*</bdi>", "", text)
    within_sentences = re.sub("\u2068[^\u2068\u2069]*\u2069", "", within_tags)
    spots = re.sub(r'<script type="application/json">.*?</script>', "", within_sentences)
    assert "gnp.exe" not in spots
    assert "שלום" not in spots
    assert text.count("\u2068") == text.count("\u2069") > 0


def test_nothing_but_the_page_itself_may_run(chromium: browser.Browser, tmp_path: Path):
    text = build_report([turned_table()])
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy[1]
    target = tmp_path / "sound.html"
    target.write_text(text)
    chromium.events.clear()
    chromium.open(target, 1400, dark=False)
    assert chromium.complaints() == []
    assert chromium.evaluate("document.getElementById('theme').hidden") is False  # the script ran
    # What a name might smuggle in, were it not escaped.
    smuggled = "<script>document.title = 'taken'</script>"
    smuggled += "<img src='http://127.0.0.1:9/x' onerror=\"document.title = 'taken'\">"
    target.write_text(text.replace("<main", f"{smuggled}<style>body {{ color: red }}</style><main"))
    chromium.open(target, 1400, dark=False)
    assert chromium.evaluate("document.title") != "taken"
    assert chromium.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    assert any("Content Security Policy" in complaint for complaint in chromium.complaints())


def test_a_histogram_counts_what_numpy_counts():
    rng = np.random.default_rng(0)
    tables = [
        ScoreTable(n, n, np.arange(500).astype(object), {"score": rng.normal(m, 1, 500)})
        for n, m in (("a", 0), ("b", 9))
    ]
    chart = histogram(tables)
    name = "\u2068a\u2069 "
    shares = [float(spot.text.split(name)[-1].split("%")[0]) for spot in chart.spots]
    edges = np.linspace(chart.x.low, chart.x.high, len(shares) + 1)
    expected = np.histogram(tables[0].scores["score"], edges)[0] / 5
    np.testing.assert_allclose(shares, expected, atol=0.005)
    assert chart.rows[0][5] == number(float(np.median(tables[0].scores["score"])))


def test_agreement_is_spearman_and_overlap():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = a + rng.normal(size=200)
    keys = np.array([f"{i:03d}" for i in range(200)], object)
    shuffled = rng.permutation(200)
    found = agreement(
        ScoreTable("a", "x", keys, {"score": a}), ScoreTable("b", "x", keys[shuffled], {"score": b[shuffled]})
    )
    assert found is not None
    assert found.spearman == pytest.approx(float(np.asarray(spearmanr(a, b))[0]), abs=1e-12)
    low = set(np.argsort(a)[:10]) & set(np.argsort(b)[:10])
    assert found.rare_overlap == len(low) / 10


@pytest.mark.parametrize(("low", "high"), [(-387.0, -234.0), (0.0, 0.11), (1e-6, 3e-6), (-2.0, 99999.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float):
    values = round_values(low, high)
    assert 2 <= len(values) <= 11
    assert low - 1e-9 <= values[0] < values[-1] <= high * (1 + 1e-9)
    assert len({tick.text for tick in Axis("x", low, high).ticks}) == len(values)


def test_a_hundred_thousand_rows_stay_small(scored_sets: dict[str, Path], tmp_path: Path):
    """100,000 rows in 1,000 groups, every one with a real picture: under 20 MB, in under a minute."""
    count, size = 100_000, 64
    rng = np.random.default_rng(0)
    spectra = np.exp(rng.normal(0, 0.3, (count, 1)) - np.linspace(0, 5, size)).astype(np.float32)
    manifest = (scored_sets["smooth"] / "manifest.json").read_text()
    pictures = open_source(scored_sets["smooth"].parent / "images" / "smooth")
    keys = [f"class{i % 1000}/{i}.png" for i in range(count)]

    class Repeated:
        """As many pictures as rows."""

        def read(self, index: int) -> bytes | np.ndarray | VideoFile:
            """One of the few that there are."""
            return pictures.read(index % len(pictures.keys))

    directory = tmp_path / "big"
    directory.mkdir()
    (directory / "manifest.json").write_text(manifest)
    table = pa.table(
        {
            "key": keys,
            "score": np.log(spectra.astype(np.float64)).sum(axis=1),
            "log_volume_rank": np.full(count, size, np.int32),
            "singular_values": pa.FixedSizeListArray.from_arrays(pa.array(spectra.ravel()), size),
        }
    )
    (directory / "scores").mkdir()
    pq.write_table(table, directory / "scores" / "part-00000.parquet")
    reader = ImageReader(Repeated(), {key: i for i, key in enumerate(keys)}, SPEC.preprocess)
    page = build_report([read_table(directory)], readers={"big": reader})
    assert len(page.encode()) < 20e6
    assert page.count("data:image/webp") == 13 * 3 * 8  # all images and twelve groups, three shelves of eight
    facts = unpacked(page)
    assert len(facts["keys"]) == len(facts["scores"]) == count
    assert len(facts["pictures"]) >= 250  # of the 300 at both ends, those that are not in the gallery
    assert "100\N{NARROW NO-BREAK SPACE}000" in page


def test_a_file_of_spectra_is_reported_beside_itself(tmp_path: Path):
    spectra = np.sort(np.random.default_rng(0).lognormal(size=(50, 12)), axis=1)[:, ::-1]
    spectra = np.concatenate([spectra, np.zeros((50, 2))], axis=1)
    np.savez(tmp_path / "spectra.npz", singular_values=spectra.astype(np.float32))
    command = [sys.executable, "-m", "jepa_jax", "report", str(tmp_path / "spectra.npz")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--null-directions" in refused.stderr
    subprocess.run([*command, "--null-directions", "2"], capture_output=True, check=True)
    assert (tmp_path / "report.html").is_file()


def test_only_what_is_listed_is_reported(scored_sets: dict[str, Path]):
    smooth, rough = (read_table(scored_sets[name]) for name in ("smooth", "rough"))
    other = dataclasses.replace(rough, keys=np.array([f"rough/{key}" for key in rough.keys], object))
    (found,) = only([smooth, other], list(smooth.keys[3:5]))
    assert found.keys.tolist() == smooth.keys[3:5].tolist()
    np.testing.assert_array_equal(found.scores["score"], smooth.scores["score"][3:5])
    with pytest.raises(jj.ArgumentError, match=r"keys: 1 of 1 have no score in smooth, such as 'none\.png'"):
        only([smooth], ["none.png"])


def test_equal_names_and_bad_groups_are_refused(scored_sets: dict[str, Path]):
    table = read_table(scored_sets["smooth"])
    with pytest.raises(jj.ArgumentError, match="each its own name"):
        build_report([table, table])
    for by, message in (
        ("([", "neither a column nor a regular expression"),
        ("xyz", "as a regular expression it needs a group"),
        ("(xyz)", "matches no key"),
    ):
        with pytest.raises(jj.ArgumentError, match=message):
            build_report([table], ReportOptions(group_by=by))


def test_thumbnails_are_small_pictures(page: Path):
    import base64

    data = re.findall(r'src="data:image/webp;base64,([^"]+)"', page.read_text())
    assert len(data) > 60
    for text in data[:5]:
        with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
            assert max(picture.size) <= SIDE
