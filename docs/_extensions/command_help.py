"""The directive ``command-help``: what ``--help`` says of every command, in 80 columns."""

from __future__ import annotations

from typing import Any

import typer.main
from docutils import nodes
from docutils.parsers.rst import Directive

from jepa_jax.cli import app
from jepa_jax.cli.examples import COMMANDS
from jepa_jax.cli.help import WIDTH, help_text


class CommandHelp(Directive):
    """A section for every command, in the order of ``jepa-jax --help``."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        program: Any = typer.main.get_group(app)
        whole = program.make_context("jepa-jax", [], resilient_parsing=True)
        sections = [self.section("jepa-jax", help_text(program, whole, WIDTH))]
        for name in (name for names in COMMANDS.values() for name in names):
            sections += self.of_command(program.commands[name], whole, name)
        return sections

    def of_command(self, command: Any, parent: Any, name: str) -> list[nodes.Node]:
        """A command's section, and those of the commands in it."""
        context = command.make_context(name, [], parent=parent, resilient_parsing=True)
        sections = [self.section(context.command_path, help_text(command, context, WIDTH))]
        for inner in getattr(command, "commands", {}):
            sections += self.of_command(command.commands[inner], context, inner)
        return sections

    def section(self, title: str, text: str) -> nodes.Node:
        """A title and a text as it stands."""
        section = nodes.section(ids=[nodes.make_id(title)], names=[nodes.fully_normalize_name(title)])
        section += nodes.title(title, title)
        section += nodes.literal_block(text.strip("\n"), text.strip("\n"), language="text")
        return section


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
