"""A kind of input as one object: how messages call it, how it is recognised, how it is opened, what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from jepa_jax.errors import ArgumentError, JepaJaxError
from jepa_jax.images.reasons import of_the_machine, sentence
from jepa_jax.images.sources.names import PART as PART
from jepa_jax.images.sources.names import text_key
from jepa_jax.images.sources.records import Records


@dataclass(frozen=True)
class Package:
    """A package that one kind of input needs and the others do not.

    Attributes:
        name: as it is imported.
        purpose: what needs it, in the words of the message.
        extra: the extra of jepa_jax that brings it.
    """

    name: str
    purpose: str
    extra: str = "data"

    def require(self) -> None:
        """Raise ArgumentError, naming the remedy, where it is not installed."""
        if find_spec(self.name) is None:
            raise ArgumentError(f"{self.purpose} need the package {self.name}: pip install 'jepa-jax[{self.extra}]'.")


def _never(_: object) -> bool:
    return False


@dataclass(frozen=True)
class SourceKind:
    """One kind of input. It is recognised by a prefix of its name, by its files' names, or by what a folder holds.

    Attributes:
        wording: how messages call it, after "give".
        read: from what the user called it and the files that it names (for a folder, itself; none for a name with a
            prefix) to its records. It raises ArgumentError where there is nothing to score.
        prefix: names that begin with it are of this kind, and no paths.
        is_file: whether a file is of this kind, by its name.
        several: whether several files may be one input, named by a pattern or lying in one folder.
        is_folder: whether a folder is of this kind, by the sorted names in it. One that no kind claims holds archives
            or images.
        in_full: a name with the prefix to what it is wherever the command is given.
        package: that must be installed.
        noun: what it is read as, in the message of what cannot be.
        read_part: as ``read``, with what stands behind `PART` in the input's name; None where there are no parts.
    """

    wording: str
    read: Callable[[str, Sequence[str]], Records]
    prefix: str | None = None
    is_file: Callable[[str], bool] = _never
    several: bool = False
    is_folder: Callable[[Sequence[str]], bool] = _never
    in_full: Callable[[str], str] = str
    package: Package | None = None
    noun: str = "such an input"
    read_part: Callable[[str, Sequence[str], str], Records] | None = None

    def is_named(self, name: str) -> bool:
        """Whether an input is of this kind by the prefix of its name."""
        return self.prefix is not None and name.startswith(self.prefix)

    def are_files(self, files: Sequence[str]) -> bool:
        """Whether these files together are an input of this kind."""
        return (self.several or len(files) == 1) and all(map(self.is_file, files))

    def open(self, name: str, files: Sequence[str] = (), part: str | None = None) -> Records:
        """The records of an input of this kind.

        Raises:
            ArgumentError: it cannot be read, holds no record, or needs a package that is not installed.
            OSError: the machine, its disk or its network is in trouble.
        """
        if self.package:
            self.package.require()
        try:
            if part is None:
                return self.read(name, files)
            if self.read_part is None:
                raise ArgumentError(
                    f"input {name}{PART}{part}: {self.wording} has no columns or other parts; leave out {PART}{part}."
                )
            return self.read_part(name, files, part)
        except JepaJaxError:
            raise
        except Exception as error:  # what libraries raise at damaged files is no closed set
            if of_the_machine(error):
                raise
            raise ArgumentError(f"input {text_key(name)} cannot be read as {self.noun}: {sentence(error)}.") from error
