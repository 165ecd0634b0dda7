"""XLA's compiled programs, read as text: what each instruction is, and what it reads and writes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BYTES = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "s32": 4, "u32": 4, "s64": 8, "s8": 1, "u8": 1, "pred": 1}
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


def arrays(text: str) -> list[tuple[int, str]]:
    """Of each array of a type, or of a tuple's: its bytes, and its layout as it stands there."""
    found = re.findall(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\](\{{[^}}]*\}})?", text)
    return [
        (_BYTES[dtype] * math.prod(int(side) for side in shape.split(",") if side), layout)
        for dtype, shape, layout in found
    ]


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
