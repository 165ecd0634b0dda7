"""What is in a report's page, and a browser's hands in it."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

from browser import Browser


def unpacked(page: str, number: int = 0) -> dict[str, Any]:
    """The list of all images of a page, by the number of its set."""
    data = re.findall(r'<script type="application/octet-stream" class="listing">([^<]*)</script>', page)
    return json.loads(zlib.decompress(base64.b64decode(data[number])))


def open_list(chromium: Browser, page: Path, width: int = 1400, dark: bool = False) -> None:
    """Load a page and wait until its list is unpacked."""
    chromium.open(page, width, dark)
    look = "() => document.documentElement.dataset.ready ? done() : setTimeout(look, 20)"
    waiting = f"new Promise(done => {{ const look = {look}; look(); }})"
    chromium.evaluate(waiting)


def enter(chromium: Browser, field: str, value: str) -> None:
    """A value into a field of the list, as if typed or chosen."""
    chromium.evaluate(
        f"(() => {{ const e = document.getElementById({field!r}); if (e.type === 'checkbox') e.click(); else {{ "
        f"e.value = {value!r}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }} }})()"
    )


def click(chromium: Browser, selector: str) -> None:
    """One element."""
    chromium.evaluate(f"document.querySelector({selector!r}).click()")


def texts(chromium: Browser, selector: str) -> list[str]:
    """What elements say."""
    return chromium.evaluate(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")
