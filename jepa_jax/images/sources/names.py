"""Names as text: a record's key on one line."""

from __future__ import annotations

import re

PART = "::"
"""Between an input, or a file, and which part of it is meant: ``shard-*.tar::jpg``, ``list.csv::image_path``."""

_NO_TEXT = re.compile("[\n\r\ud800-\udfff]")
"""What a key on one line of UTF-8 cannot hold: line breaks, and bytes that are no UTF-8, as Python has them."""

_ALL_ESCAPES = re.compile(r"(?:[^\\]|\\(?:[\\nr]|x[89a-f][0-9a-f]|ud[89a-f][0-9a-f]{2}))*")
"""Text whose every backslash could have been written by `text_key`."""


def text_key(name: str) -> str:
    r"""A file name as one line of text: ``\n`` and ``\r`` for line breaks, ``\xff`` for a byte that is no UTF-8.

    Two names never share a key: where something was escaped, and where a name reads as if something were, its
    backslashes are doubled. All other names are their own keys, ``a\b.png`` too.
    """
    if not (unfit := _NO_TEXT.search(name)) and "\\" not in name:
        return name
    name = _joined(name)
    if unfit or _ALL_ESCAPES.fullmatch(name):
        name = name.replace("\\", "\\\\")
    return _NO_TEXT.sub(_escape, name)


def is_text(name: str) -> bool:
    """Whether a name is UTF-8, as tables and URLs must be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _joined(name: str) -> str:
    """Bytes of one character that were decoded one by one, where the locale was no UTF-8, are that character."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that no file's name gives
        return name


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code in (10, 13):
        return "\\n" if code == 10 else "\\r"
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
