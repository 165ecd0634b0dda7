"""Files behind a scheme: ``file://`` on this machine, http(s) by the standard library, all others through fsspec."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.paths import TRY_LATER, patiently, store_of, to_path

MAX_BYTES = 2**30
"""An encoded image that is larger is refused unread (1 GiB)."""

HERE = frozenset(("file", "local"))
"""Schemes of this machine's own files."""

TIMEOUT = 60.0
"""Seconds without a word from a web server after which the connection counts as lost."""

_SAFE = "!#$%&'()*+,/:;=?@[]~"
"""Characters of a URL that are sent as they are; "%" too, so that what is quoted is not quoted again."""


def scheme_of(path: str) -> str | None:
    """``s3`` of ``s3://bucket/key``; None of a path on this machine."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(::[^/]*)?://", path)
    return found.group(1).lower() if found else None


def local_path(url: str) -> str:
    """The path that a ``file://`` URL names; its ``%20`` is a blank unless a file is really called so.

    Raises:
        ImageError: it names another machine's.
    """
    host, _, path = url.partition("://")[2].partition("/")
    if host not in ("", "localhost"):
        raise ImageError(f"{url} names a file of the machine {host!r}; write file:///PATH")
    path = f"/{path}"
    return path if os.path.exists(path) else unquote(path)


def require_readable(path: str) -> None:
    """Raise ArgumentError where nothing here can read a path of this scheme."""
    schemes = [part.partition("://")[0] for part in path.split("::") if "://" in part]
    for scheme in map(str.lower, schemes):
        if scheme in HERE | {"http", "https"} and len(schemes) == 1:
            continue
        try:
            import fsspec

            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise ArgumentError(f"{scheme}:// paths cannot be read here: {error}.") from error
        except ValueError as error:
            raise ArgumentError(f"{scheme}:// is no scheme that fsspec knows, and no folder either.") from error


def read_remote(path: str) -> bytes:
    """A whole file behind a scheme.

    Raises:
        ImageError: the server has no such file, or it is too large.
        OSError, ImportError: it cannot be read; errors of a connection are as the system gives them.
    """
    scheme = scheme_of(path)
    if scheme in ("http", "https"):
        return _read_web(path)
    if "::" in path:  # a chain, such as a member of an archive: fsspec opens it
        import fsspec

        with fsspec.open(path, "rb") as stream:
            return _bounded(stream)
    store, name = store_of(to_path(path))

    def read() -> bytes:
        with store.open(name, "rb", cache_type="none") as stream:
            return _bounded(stream)

    return patiently(read)


def _bounded(stream: Any) -> bytes:
    _require_size(getattr(stream, "size", None))
    data = stream.read(MAX_BYTES + 1)
    _require_size(len(data))
    return data


AHEAD = 2**22
"""Bytes that are read on in a file behind a scheme whose records are read one after another: one request for many."""

NEAR = 2**16
"""Bytes between two records that count as one after another: headers, labels, captions."""


@dataclass
class _Window:
    """Part of a file that was read: from ``start`` on; what was asked for last ended at ``asked``."""

    start: int
    data: bytes
    asked: int


_windows: OrderedDict[str, _Window] = OrderedDict()
_WINDOWS = 8
_lock = threading.Lock()


def read_range(path: str, offset: int, size: int) -> bytes:
    """Bytes of a file behind a scheme, fewer where it ends before.

    Records that lie one after another are read together: a tar of small pictures takes a request per `AHEAD` bytes and
    not one per picture. At most eight files' windows are kept.
    """
    with _lock:
        window = _windows.get(path)
        if window and window.start <= offset and offset + size <= window.start + len(window.data):
            window.asked = offset + size
            _windows.move_to_end(path)
            return window.data[offset - window.start : offset - window.start + size]
        follows = window is not None and 0 <= offset - window.asked <= NEAR
    store, name = store_of(to_path(path))
    end = offset + (max(size, AHEAD) if follows else size)
    data = patiently(lambda: store.cat_file(name, start=offset, end=end))
    with _lock:
        _windows[path] = _Window(offset, data, offset + size)
        _windows.move_to_end(path)
        while len(_windows) > _WINDOWS:
            _windows.popitem(last=False)
    return data[:size]


def size_of(path: str) -> int | None:
    """Bytes of a file behind a scheme, where its store tells; the web's servers are not asked."""
    if scheme_of(path) in ("http", "https") or "::" in path:
        return None
    store, name = store_of(to_path(path))
    return patiently(lambda: store.size(name))


def sizes_below(folder: str) -> dict[str, int]:
    """Bytes of every file below a folder behind a scheme, by its path: one listing."""
    store, name = store_of(to_path(folder))
    found = patiently(lambda: store.find(name, detail=True))
    return {store.unstrip_protocol(file): facts["size"] for file, facts in found.items()}


def _read_web(url: str) -> bytes:
    # Imported here: every worker process loads this module, and few read from the web.
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(quote(url, safe=_SAFE), headers={"User-Agent": "jepa-jax"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            _require_size(answer.length)
            data = answer.read(MAX_BYTES + 1)
            if answer.length:
                raise http.client.IncompleteRead(data, answer.length)
    except urllib.error.HTTPError as error:
        said = f"the server answers {error.code} {error.reason}"
        raise (ConnectionError if error.code in TRY_LATER else ImageError)(said) from error
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"no word from the server in {TIMEOUT:.0f} s") from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            raise TimeoutError(errno.ETIMEDOUT, f"no word from the server in {TIMEOUT:.0f} s") from error
        if isinstance(reason, OSError) and (reason.errno or 0) > 0:
            raise reason from error
        raise ConnectionError(f"no connection to {urlsplit(url).netloc}: {reason}") from error
    except http.client.InvalidURL as error:
        raise ImageError(f"it is no URL: {error}") from error
    except http.client.HTTPException as error:
        raise ConnectionError(f"the connection broke off: {error or type(error).__name__}") from error
    _require_size(len(data))
    return data


def _require_size(size: object) -> None:
    if isinstance(size, int) and size > MAX_BYTES:
        raise ImageError(f"the file has {size} bytes, over the limit of {MAX_BYTES}")
