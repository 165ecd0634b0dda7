"""XLA's compiled programs, read as text: what each instruction is, and what it reads and writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NOTHING_MOVED = ("bitcast", "get-tuple-element", "tuple", "parameter", "constant")


@dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
        kind: of operation, such as ``fusion``.
        result: its type, with shape and layout; a tuple's in parentheses.
        operands: their types.
        line: as it stands there.
    """

    kind: str
    result: str
    operands: tuple[str, ...]
    line: str


def instructions(program: str) -> Iterator[Instruction]:
    """Those of a program's main part that may move memory; loops inside it are not gone into."""
    types: dict[str, str] = {}
    for line in program[program.index("ENTRY") :].splitlines():
        match = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)", line)
        if match is None:
            continue
        name, types[match[1]], kind, rest = match.groups()
        operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        if kind not in _NOTHING_MOVED:
            yield Instruction(kind, types[name], tuple(types.get(operand, "") for operand in operands), line)
