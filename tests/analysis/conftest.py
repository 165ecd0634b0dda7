"""What the tests of the report share."""

from __future__ import annotations

from collections.abc import Iterator

import browser
import pytest


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A real browser; where there is none, what looks at pages is skipped."""
    if browser.CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with browser.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
