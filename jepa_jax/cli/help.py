"""What ``--help`` shows: options in panels, each with its default; two examples; 80 columns. Nothing is markup."""

from __future__ import annotations

import enum
import inspect
import re
import shutil
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

import typer.core

from jepa_jax.cli.examples import COMMANDS, EXAMPLES, PANELS
from jepa_jax.errors import ArgumentError

WIDTH = 80
"""Columns, at most; fewer where the terminal is narrower."""

INDENT = 26
"""Where the words of an option begin."""

_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT", bool: ""}
_NAMED = {
    "output": "DIR",
    "model": "NAME",
    "between": "LOW HIGH",
    "against": "DIR",
    "reference": "DIR",
    "in_set": "DIR",
    "out": "DIR",
    "images": "NAME=PATH",
    "data": "FILE",
    "keys": "FILE",
    "column": "NAME",
    "group_by": "HOW",
    "predictor": "DIR",
}
_FORMATS = {
    ("plan", "images"): "N",
    ("calibrate", "images"): "N",
    ("imagenet", "images"): "N",
    ("ood", "images"): "N",
    ("views", "images"): "N",
    ("report", "output"): "FILE",
    ("bench", "output"): "FILE",
}


_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/{1,2}(.*)")
"""Of a store; a `pathlib.Path` keeps one of the two slashes."""


class Helpful:
    """A command, or a group of commands, that says what it takes."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the whole text."""
        formatter.write(help_text(self, ctx, min(WIDTH, shutil.get_terminal_size().columns)))


class Command(Helpful, typer.core.TyperCommand):
    """A command; what it takes as a `pathlib.Path` is a place on this machine, and no address."""

    def invoke(self, ctx: Any) -> Any:
        """Run it.

        Raises:
            ArgumentError: the address of a store stands for a local path, which would make a folder of that name.
        """
        local = {name for name, (kind, _) in _facts(self.callback).items() if kind is Path}
        for parameter in self.params:
            value = ctx.params.get(parameter.name) if parameter.name in local else None
            for place in value if isinstance(value, (list, tuple)) else [value]:
                if found := _ADDRESS.match(str(place)):
                    raise ArgumentError(
                        f"{parameter.opts[0]} {found[1]}//{found[2]}: here this command takes a path on this machine, "
                        "and no address of a store."
                    )
        return super().invoke(ctx)


class Group(Helpful, typer.core.TyperGroup):
    """The program, and `jepa-jax study`."""


def help_text(command: Any, ctx: Any, width: int) -> str:
    """The help of a command, at most ``width`` columns wide."""
    path = ctx.command_path.replace("python -m jepa_jax", "jepa-jax")
    parameters = command.get_params(ctx)
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    usage = [path, "[OPTIONS]", *(str(p.metavar or p.name.upper()) for p in arguments)]
    commands = getattr(command, "commands", {})
    lines = ["", f"Usage: {' '.join(usage)}{' COMMAND ...' if commands else ''}", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [*_wrapped(" ".join(paragraph.split()), width, 0), ""]
    for title, names in _of_commands(commands):
        lines += [title, *(row for name in names for row in _row(name, _first(commands[name].help), width, 13)), ""]
    facts = _facts(command.callback)
    if arguments:
        lines += ["Arguments", *(row for p in arguments for row in _about(p, facts, command.name, width)), ""]
    for title, some in _panels(command.name, options, facts).items():
        lines += [title, *(row for p in some for row in _about(p, facts, command.name, width)), ""]
    if examples := EXAMPLES.get(path.removeprefix("jepa-jax").strip()):
        lines += ["Examples", *(row for example in examples for row in _example(example, width)), ""]
    return "\n".join(lines)


def _of_commands(commands: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Commands by what they are for; those that no group names come last."""
    found = [(title, [name for name in names if name in commands]) for title, names in COMMANDS.items()]
    named = {name for _, names in found for name in names}
    rest = [name for name in commands if name not in named]
    return [(title, names) for title, names in [*found, ("Commands", rest)] if names]


def _panels(command: str | None, options: list[Any], facts: dict[str, Any]) -> dict[str, list[Any]]:
    """Options by panel: as `PANELS` has it, else as the option says, in the order in which they come."""
    places = {name: title for title, names in PANELS.get(command or "", {}).items() for name in names}
    found: dict[str, list[Any]] = {title: [] for title in PANELS.get(command or "", {})}
    for option in options:
        own = getattr(facts.get(option.name, (None, None))[1], "rich_help_panel", None)
        title = "Help" if option.name in _PROGRAM else places.get(option.name) or own or "Options"
        found.setdefault(title, []).append(option)
    found["Help"] = found.pop("Help", [])
    return {title: some for title, some in found.items() if some}


_PROGRAM = ("help", "version", "install_completion", "show_completion")


def _facts(callback: Any) -> dict[str, tuple[Any, Any]]:
    """Type and `typer.Option` of each parameter, as the function is written."""
    if callback is None:
        return {}
    found = {}
    for name, hint in typing.get_type_hints(callback, include_extras=True).items():
        if typing.get_origin(hint) is typing.Annotated:
            kind, info = typing.get_args(hint)[:2]
            found[name] = _bare(kind), info
    return found


def _bare(kind: Any) -> Any:
    """A type without None and without the list around it."""
    while True:
        origin, inner = typing.get_origin(kind), [a for a in typing.get_args(kind) if a is not type(None)]
        if (origin in (typing.Union, types.UnionType) and len(inner) == 1) or origin is list:
            kind = inner[0]
        else:
            return kind


def _choices(kind: Any) -> list[str]:
    if typing.get_origin(kind) is typing.Literal:
        return [str(value) for value in typing.get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [str(member.value) for member in kind]
    return []


def _about(parameter: Any, facts: dict[str, tuple[Any, Any]], command: str | None, width: int) -> list[str]:
    """An option or argument: what is written, what it means, choices, limits and default."""
    kind, info = facts.get(parameter.name, (bool, None))
    choices = _choices(kind)
    if parameter.param_type_name == "argument":
        written = str(parameter.metavar or parameter.name.upper())
    else:
        flag = bool(getattr(parameter, "is_flag", False))
        both = flag and parameter.secondary_opts and parameter.default is None
        names = parameter.opts if not (flag and parameter.default is True) else parameter.secondary_opts
        value = "" if flag else parameter.metavar or _placeholder(command, parameter.name, kind, choices)
        written = " ".join([*names, value]).strip() if len(names) == 1 else ", ".join(sorted(names, key=len))
        written += f", {parameter.secondary_opts[0]}" if both else ""
    said = " ".join((parameter.help or "").split())
    notes = [f"One of {', '.join(choices)}."] if choices else []
    low, high = (getattr(info, end, None) for end in ("min", "max"))
    if low is not None or high is not None:
        notes.append(
            f"At least {low}." if high is None else f"At most {high}." if low is None else f"From {low} to {high}."
        )
    if parameter.required:
        notes.append("Required.")
    default = parameter.default
    if not (parameter.required or default is None or isinstance(default, (bool, tuple, list)) or callable(default)):
        text = str(default.value if isinstance(default, enum.Enum) else default)
        notes.append(f"Default: {text}.")
    return _row(written, " ".join([said, *notes]).strip(), width, INDENT)


def _placeholder(command: str | None, name: str, kind: Any, choices: list[str]) -> str:
    if choices:
        return "WHICH"
    if placeholder := _FORMATS.get((command or "", name)):
        return placeholder
    return _NAMED.get(name) or _PLACEHOLDERS.get(kind, "PATH")


def _row(written: str, said: str, width: int, indent: int) -> list[str]:
    """What is written, and beside or below it what it means."""
    words = _wrapped(said, width, indent) or [""]
    if len(written) + 4 > indent:
        return [f"  {written}", *words]
    return [f"  {written}".ljust(indent) + words[0].lstrip(), *words[1:]]


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(
        text, width, initial_indent=space, subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    )


def _example(command: str, width: int) -> list[str]:
    """A command, broken between its words where it is long."""
    lines = textwrap.wrap(command, width - 4, break_long_words=False, break_on_hyphens=False)
    return [f"  {'  ' * (i > 0)}{line}{' ' + chr(92) if i < len(lines) - 1 else ''}" for i, line in enumerate(lines)]


def _first(text: str | None) -> str:
    """The first sentence of a help text."""
    paragraph = " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph)[0]
