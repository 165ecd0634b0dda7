"""Stopping because too many records fail."""

from __future__ import annotations

from dataclasses import dataclass

from jepa_jax.errors import ArgumentError, JobError


@dataclass(frozen=True)
class FailureLimit:
    """How many records may fail before a job gives up, since something is wrong with all of it.

    Attributes:
        count: at most so many, or
        share: at most this share of the records tried so far, once `SAMPLE` are tried, and of all in the end.

    While a job runs, each process counts what it has tried itself; in the end the whole table counts.
    """

    count: int | None = None
    share: float | None = None

    SAMPLE = 100

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """``"50"`` is a count, ``"0.1"`` and ``"10%"`` are shares."""
        try:
            if text.isdecimal():
                return cls(count=int(text))
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ArgumentError(f"max_failures={text!r} must be a count such as 50, or a share such as 0.1 or 10%.")
        return cls(share=share)

    def check(self, tried: int, failed: int, last_reason: str) -> None:
        """Raise JobError if too many have failed so far."""
        if (self.share is None or tried >= self.SAMPLE) and self._exceeded(tried, failed):
            raise JobError(
                f"{failed} of the {tried} records tried have failed, and max_failures allows {self}; the last "
                f"reason: {last_reason.rstrip('.')}. Whole parts are kept: mend the input, or raise --max-failures, "
                "and give the same command."
            )

    def check_all(self, records: int, failed: int) -> None:
        """Raise JobError if too many of a whole job have failed."""
        if self._exceeded(records, failed):
            raise JobError(
                f"{failed} of all {records} records have failed, and max_failures allows {self}. Every part is "
                "written: mend the input and give the same command with --retry-failed, or raise --max-failures."
            )

    def _exceeded(self, records: int, failed: int) -> bool:
        most = self.count if self.share is None else self.share * records
        return most is not None and failed > most

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{self.share:.3g} of them"
