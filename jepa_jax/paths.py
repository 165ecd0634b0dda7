"""Paths of files wherever they lie: local ones are `pathlib`'s, those behind a scheme are universal_pathlib's.

Both have the same methods. What stores need besides is here: a file that is written whole or not at all, one that is
created only if there is none, and patience with a store that answers "later".

Free of JAX: worker processes import it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from jepa_jax.errors import ArgumentError, JobError

AnyPath: TypeAlias = Path
"""A path, local or not: universal_pathlib's have the methods of `pathlib.Path`, and no `__fspath__`."""

PathLike: TypeAlias = str | os.PathLike[str]
"""What a path is made of."""

STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub", "memory": "fsspec"}
"""Schemes of whole inputs and outputs, and the package that reads and writes each."""

SETTLED = 3.0
"""Seconds after which a file that stands in its place is taken to be the last one of those that began there."""

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between tries of what a store refused for the moment: half a minute in all."""

_NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EXDEV))

TRY_LATER = frozenset((408, 429, 502, 503, 504))
"""What a server answers when it, and not what was asked for, is in trouble."""

_LATER = frozenset(map(str, TRY_LATER)) | frozenset(
    "SlowDown ServiceUnavailable InternalError RequestTimeout RequestTimeTooSkewed Throttling 500".split()
)
"""Codes of stores' answers after which the same request may succeed; their packages try some of them again."""

_TEMPORARY = f".{socket.gethostname()}-{os.getpid()}.tmp"
"""Ending of this process's temporary files, which begin with a dot."""

_being_written: set[str] = set()
"""This process's own: any other of its number is of an earlier process."""

ABANDONED_AFTER = 86400.0
"""Seconds after which another machine's temporary file is taken to be of a process that was killed."""

Result = TypeVar("Result")


def to_path(place: PathLike) -> AnyPath:
    """A path as an object; nothing is looked up.

    Raises:
        ArgumentError: it lies in a store that nothing installed here can reach.
    """
    text = str(place)
    if not is_remote(text):
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    scheme = text.partition("://")[0].lower()
    try:
        from upath import UPath

        # Listings must not be kept: other processes write into the same folder.
        options: dict[str, Any] = {} if scheme in ("memory", "file") else {"use_listings_cache": False}
        path: Any = UPath(text, **options)
        store_of(path)  # loads its package
    except ImportError as error:
        package = STORES.get(scheme, "that fsspec asks for")
        raise ArgumentError(f"{text!r} needs the package {package} ({error}): pip install {package}.") from error
    except ValueError as error:
        raise ArgumentError(f"{text!r}: {error}; known are paths here, {known_stores()}.") from error
    return path


def require_named(place: PathLike, argument: str) -> None:
    """Refuse an empty name, as of a shell's variable that is not set: it would be the folder that one is in.

    Raises:
        ArgumentError: it is empty.
    """
    if not str(place):
        raise ArgumentError(f"{argument} {place!r} names nothing; give a path, and . for the folder that you are in.")


def store_of(path: AnyPath) -> tuple[Any, str]:
    """The fsspec file system that a path behind a scheme lies in, and its name there."""
    remote: Any = path
    return remote.fs, remote.path


def known_stores() -> str:
    """The schemes in words."""
    return ", ".join(f"{scheme}://" for scheme in sorted(STORES))


def is_remote(place: PathLike) -> bool:
    """Whether a path has a scheme."""
    return "://" in str(place)


def patiently(operation: Callable[[], Result]) -> Result:
    """The result of a request to a store, asked again where the store is busy or the connection broke.

    Args:
        operation: what is asked; it may be asked several times.
    """
    for wait in WAITS:
        try:
            return operation()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(wait * random.uniform(0.5, 1))
    return operation()


def may_pass(error: BaseException | None) -> bool:
    """Whether what a store answered may be otherwise in a moment."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        response = getattr(error, "response", None)  # botocore's
        codes = [response.get("Error", {}).get("Code")] if isinstance(response, dict) else []
        codes += [getattr(error, name, None) for name in ("code", "status")]  # gcsfs's, aiohttp's
        if any(str(code) in _LATER for code in codes):
            return True
        package = type(error).__module__.partition(".")[0]
        if package in ("aiohttp", "botocore") and "Connection" in type(error).__name__:
            return True
        error = error.__cause__
    return False


def unreachable(error: BaseException | None) -> str | None:
    """In words, where no connection to a store came about; None where the error is another."""
    while error is not None:
        package = type(error).__module__.partition(".")[0]
        if package == "botocore" and "Credentials" in type(error).__name__:
            said = " ".join(str(error).split())
            return f"the store asks who is there: {said}; set AWS_ACCESS_KEY_ID and its secret, or ~/.aws, or a role."
        if package in ("aiohttp", "botocore") and "Connect" in type(error).__name__:
            address = getattr(error, "kwargs", {}).get("endpoint_url")  # botocore's
            where = f" at {'/'.join(str(address).split('/')[:3])}" if address else ""
            return (
                f"the store{where} cannot be reached: {' '.join(str(error).split())}; check AWS_ENDPOINT_URL "
                "and the network."
            )
        error = error.__cause__
    return None


def read_bytes(path: AnyPath) -> bytes:
    """A whole file."""
    return patiently(path.read_bytes) if is_remote(path) else path.read_bytes()


def names_in(folder: AnyPath) -> list[str]:
    """Names of what lies in a folder; none where there is no such folder."""
    if not is_remote(folder):
        try:
            return os.listdir(folder)
        except FileNotFoundError:
            return []
    try:
        # One listing, where asking first whether it is a folder would be another.
        store, name = store_of(folder)
        found = patiently(lambda: store.ls(name, detail=False))
    except FileNotFoundError:
        return []
    return [name for entry in found if (name := entry.rstrip("/").rpartition("/")[2])]


def make_folder(path: AnyPath) -> None:
    """Make a local folder and those above it; stores have none."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def make_output(path: AnyPath) -> None:
    """`make_folder`, of an output that somebody named.

    Raises:
        JobError: it cannot be made.
    """
    try:
        make_folder(path)
    except OSError as error:
        said = error.strerror or error
        raise JobError(f"output {path} cannot be made a directory ({said}); name another.") from error


def remove(path: AnyPath) -> None:
    """Remove a file if it is there."""
    if is_remote(path):
        store, name = store_of(path)
        with contextlib.suppress(FileNotFoundError):
            patiently(lambda: store.rm_file(name))
    else:
        path.unlink(missing_ok=True)


def write_whole(path: AnyPath, data: bytes) -> None:
    """Write a file so that no reader ever sees half of it: under a temporary name, then renamed; a store does it so.

    Raises:
        JobError: it cannot be written; the temporary file is gone then, and what was there before is untouched.
    """
    if is_remote(path):
        _put(path, data)
        return
    with _temporary_beside(path, data) as temporary:
        os.replace(temporary, path)


def write_output(path: AnyPath, data: bytes) -> None:
    """`write_whole` a file that somebody named; what is no plain file, such as /dev/stdout, or a link, stays one.

    Raises:
        JobError: it cannot be written.
    """
    if is_remote(path) or not (path.is_symlink() or (path.exists() and not path.is_file())):
        write_whole(path, data)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def create(path: AnyPath, data: bytes) -> bool:
    """Create a file with this content unless there is one: whether it was created.

    A local disk links a whole temporary file to the name, which fails where there is one. An object store is asked to
    put the object only if there is none (fsspec's ``mode="create"``: ``If-None-Match`` on S3, ``ifGenerationMatch=0``
    on Google Cloud Storage). Where renaming is all there is, the file is written if there is none, and seen to have
    stayed `SETTLED` seconds later.
    """
    if is_remote(path):
        store, name = store_of(path)
        try:
            patiently(lambda: store.pipe_file(name, data, mode="create"))
        except FileExistsError:
            pass
        except (TypeError, ValueError, NotImplementedError):  # this store knows no conditional put
            return _write_and_see(path, data)
        except Exception as error:  # every store's package has errors of its own
            raise _cannot_be_written(path, error) from error
        return _holds(path, data)  # an answer may have been lost, and the request sent again: what stands there tells
    with _temporary_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network file system may have made the link and lost its answer: then the file has two names.
            return os.stat(temporary).st_nlink == 2
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _write_and_see(path, data)
    return True


def _write_and_see(path: AnyPath, data: bytes) -> bool:
    if path.exists():
        return False
    write_whole(path, data)
    time.sleep(SETTLED)
    return _holds(path, data)


def _holds(path: AnyPath, data: bytes) -> bool:
    try:
        return read_bytes(path) == data
    except FileNotFoundError:
        return False  # it was removed in this moment


def _put(path: AnyPath, data: bytes) -> None:
    store, name = store_of(path)
    try:
        patiently(lambda: store.pipe_file(name, data))
    except Exception as error:  # every store's package has errors of its own
        raise _cannot_be_written(path, error) from error


@contextlib.contextmanager
def _temporary_beside(path: AnyPath, data: bytes) -> Iterator[str]:
    """A whole file under a name of this thread's alone beside ``path``, removed at the end if it is still there."""
    temporary = f"{path.parent}/.{path.name}.{threading.get_ident()}{_TEMPORARY}"
    _being_written.add(temporary)
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut after the rename could leave an empty part
        yield temporary
    except OSError as error:
        raise _cannot_be_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        _being_written.discard(temporary)


def names_to_clear(folder: AnyPath) -> list[str]:
    """Names of what lies in a folder, without the temporary files of processes that still write them."""
    return [name for name in names_in(folder) if not _is_temporary(name) or _is_abandoned(folder / name)]


def remove_abandoned(folder: AnyPath) -> None:
    """Remove the temporary files of processes that were killed while they wrote. A store has none."""
    for name in [] if is_remote(folder) else names_in(folder):
        if _is_temporary(name) and _is_abandoned(folder / name):
            remove(folder / name)


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _is_abandoned(temporary: AnyPath) -> bool:
    """Whether the process that wrote a temporary file is gone; of another machine's only the file's age can tell."""
    machine, _, process = temporary.name.removesuffix(".tmp").rpartition("-")
    if machine.endswith(f".{socket.gethostname()}") and process.isdecimal():
        return str(temporary) not in _being_written if int(process) == os.getpid() else not runs(int(process))
    try:
        return time.time() - temporary.stat().st_mtime > ABANDONED_AFTER
    except OSError:
        return False  # renamed into its place meanwhile


def runs(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return True


def _cannot_be_written(path: AnyPath, error: Exception) -> JobError:
    number = getattr(error, "errno", None)
    remedy = "make space, and" if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "once it can be written,"
    said = getattr(error, "strerror", None) or error
    return JobError(f"{path} cannot be written: {said}. What is there is whole: {remedy} give the same command again.")
