"""README and pages state no figure that was not measured: the table is the newest run's, others name their file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.places import ROOT

RENDERED = re.compile(r"<!-- (benchmarks:begin|parity:).*?<!-- (benchmarks:end|end of parity) -->", re.DOTALL)
CODE = re.compile(r"```.*?```|^    .*$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
FIGURE = re.compile(
    r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?: ?(%|x)|[ -](times|s|ms|seconds?|minutes?|hours?|[KMGT]i?B|[GT]FLOPS?|nats"
    r"|images? per second))(?!\w)"
)
RESULT = re.compile(r"benchmarks/results/[\w./-]*\w")

OTHERWISE = {"amortised", "engines", "mathematics", "paper", "pictures", "tutorial", "weights", "when-to-use"}
"""Pages that name the file of all their figures in one place, make them in the build, or whose figures are rules."""
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.stem not in OTHERWISE)]


DEFINITIONS = ("FPR at 95% TPR", "95% of the in-set", "at least 95% of images", "smallest 80%", "plans for 8 GiB")
"""Names that have a figure in them."""


def measured_figures(text: str) -> Iterator[tuple[str, str, str]]:
    """Figure, unit and paragraph of everything that reads like a measurement."""
    for definition in DEFINITIONS:
        text = text.replace(definition, "")
    for paragraph in RENDERED.sub("", text).split("\n\n"):
        for match in FIGURE.finditer(CODE.sub("", paragraph)):
            yield match[1], match[2] or match[3], paragraph


def unfounded(text: str) -> list[str]:
    """Figures whose paragraph names no results file that holds them."""

    def founded(figure: str, unit: str, paragraph: str) -> bool:
        named = [ROOT / name for name in RESULT.findall(paragraph)]
        files = [file for path in named for file in (path.glob("*.*") if path.is_dir() else [path]) if file.is_file()]
        return any(holds(file.read_text(), figure, unit) for file in files)

    return [
        f"{figure} {unit}"
        for figure, unit, paragraph in measured_figures(text)
        if not founded(figure, unit, paragraph)
    ]


def holds(results: str, figure: str, unit: str) -> bool:
    """Whether some number of a file, rounded to the figure's digits, is the figure; percentages may be shares."""
    digits = len(figure.partition(".")[2])
    wanted = float(figure.replace(",", ""))
    numbers = (float(found) for found in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", results))
    return any(round(n * scale, digits) == wanted for n in numbers for scale in ((1, 100) if unit == "%" else (1,)))


def test_the_readme_shows_the_newest_run():
    text = readme.README.read_text()
    assert readme.rendered(text) == text, "python -m benchmarks.readme"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_figure_was_measured(page: Path):
    assert unfounded(page.read_text()) == []


@pytest.mark.parametrize("claim", ["It is 3.5x faster.", "A report has 2 MB.", "It takes 10-12 minutes.", "5% less."])
def test_a_bare_figure_is_found(claim: str):
    assert len(unfounded(f"Some text.\n\n{claim}")) == 1
    assert unfounded(f"Code: `{claim}`\n\n    {claim}\n\n```\n{claim}\n```") == []


def test_a_figure_must_be_in_the_file_that_it_names():
    assert unfounded("It is 123456.7% faster: benchmarks/results/parity.json") == ["123456.7 %"]
    assert holds('{"share": 0.92517, "seconds": 4.41}', "92.5", "%")
    assert holds('{"seconds": 4.41}', "4.4", "s")
    assert not holds('{"seconds": 4.46}', "4.4", "s")


def test_the_newest_run_of_each_suite_is_shown(tmp_path: Path):
    for name, suite, begun in (("a", "cpu", "2026-01-02"), ("b", "cpu", "2026-01-10"), ("c", "gpu", "2026-01-01")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"suite": suite, "environment": {"begun": begun}}))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "results.json").write_text("{}")
    assert [folder.name for folder, _ in readme.newest_runs(tmp_path)] == ["c", "b"]
    # One that has raced more encoders says more.
    older = {"suite": "cpu", "environment": {"begun": "2026-01-02"}, "stages": {"race-one": {"results": {}}}}
    (tmp_path / "a" / "results.json").write_text(json.dumps(older))
    assert [folder.name for folder, _ in readme.newest_runs(tmp_path)] == ["c", "a"]
