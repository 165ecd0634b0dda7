"""Files behind a scheme: ``file://`` on this machine, http(s) by the standard library, all others through fsspec."""

from __future__ import annotations

import errno
import os
import re
from importlib.util import find_spec
from urllib.parse import quote, unquote, urlsplit

from etils import epath

from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.images.reasons import TRY_LATER

MAX_BYTES = 2**30
"""An encoded image that is larger is refused unread (1 GiB)."""

HERE = frozenset(("file", "local"))
"""Schemes of this machine's own files."""

OF_EPATH = frozenset(("gs", "s3", "az", "hf"))
"""Schemes of whole inputs and outputs."""

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
            if not (scheme in OF_EPATH and find_spec("tensorflow")):
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
    try:
        import fsspec

        opened = fsspec.open(path, "rb")
    except ImportError:
        if scheme not in OF_EPATH or not find_spec("tensorflow"):
            raise
        return epath.Path(path).read_bytes()  # which then reads through TensorFlow
    with opened as stream:
        _require_size(getattr(stream, "size", None))
        data = stream.read(MAX_BYTES + 1)  # pyright: ignore[reportAttributeAccessIssue]
    _require_size(len(data))
    return data


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
