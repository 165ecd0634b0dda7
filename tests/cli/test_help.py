"""``--help``: 80 columns, two examples that parse, every default, nothing eaten; --version, -h, --quiet."""

import inspect
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer
from command_line import run

import jepa_jax as jj
from convert_weights.export import FAMILIES
from jepa_jax.cli import app
from jepa_jax.cli.examples import COMMANDS, EXAMPLES, PANELS
from jepa_jax.cli.help import WIDTH, help_text
from jepa_jax.encoders import ENCODERS

PROGRAM: Any = typer.main.get_command(app)
ALL = [(name,) for name in PROGRAM.commands if name != "study"]
STUDIES = [("study", name) for name in PROGRAM.commands["study"].commands]


def text(path: tuple[str, ...]) -> str:
    return run(*path, "--help", columns=80).stdout


def in_process(path: tuple[str, ...], width: int = WIDTH) -> str:
    context = PROGRAM.context_class(PROGRAM, info_name="jepa-jax")
    command = PROGRAM
    for name in path:
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context)
    return help_text(command, context, width)


@pytest.mark.parametrize("path", [(), ("study",), *ALL, *STUDIES])
def test_help_fits_and_names_every_option(path: tuple[str, ...]):
    shown = in_process(path)
    assert max(map(len, shown.splitlines())) <= WIDTH
    command = PROGRAM
    for name in path:
        command = command.commands[name]
    for parameter in command.params:
        written = parameter.metavar or parameter.name.upper() if parameter.param_type_name == "argument" else None
        assert (written or parameter.opts[0]) in shown
        flag = getattr(parameter, "is_flag", False)
        default = parameter.default
        if default is not None and not flag and not parameter.required and default not in ((), []):
            assert f"Default: {getattr(default, 'value', default)}." in " ".join(shown.split())
    assert shown.count("\nHelp\n") == 1


@pytest.mark.parametrize("path", ALL)
def test_each_command_has_two_examples_of_its_own_options(path: tuple[str, ...]):
    (name,) = path
    examples = EXAMPLES[name]
    assert len(examples) == 2
    known = {option for parameter in PROGRAM.commands[name].params for option in parameter.opts}
    for example in examples:
        words = shlex.split(example)
        assert words[:2] == ["jepa-jax", name]
        assert {word for word in words if word.startswith("--")} <= known
        context = PROGRAM.commands[name].make_context(name, words[2:])  # types, ranges and what is required
        context.close()
        assert " ".join(example.split()) in " ".join(in_process(path).replace("\\\n", " ").split())


def test_the_examples_export_what_has_a_format():
    for example in EXAMPLES["export"]:
        model = shlex.split(example)[2]
        assert model.endswith("/") or ENCODERS[model].family in FAMILIES


def test_every_command_and_option_of_the_order_exists():
    assert {name for names in COMMANDS.values() for name in names} == set(PROGRAM.commands)
    for name, panels in PANELS.items():
        known = {parameter.name for parameter in PROGRAM.commands[name].params}
        assert {option for options in panels.values() for option in options} <= known


def test_a_number_of_images_is_no_path():
    for counting in (("calibrate",), ("study", "imagenet"), ("study", "ood"), ("study", "views")):
        assert "--images N " in in_process(counting)
    assert "--images NAME=PATH" in in_process(("evaluate",))


def test_nothing_in_help_is_taken_for_markup():
    shown = " ".join(text(("report",)).split())
    assert "'^([a-z]+)_'" in shown
    assert "jepa-jax report" in shown
    assert "shard-{000..127}.tar" in text(("score",))


def test_short_and_long():
    assert run("select", "-h").stdout == run("select", "--help").stdout != ""
    assert run("--version").stdout == f"jepa-jax {jj.__version__}\n"
    assert "--install-completion" in run("-h").stdout


def test_help_and_version_load_no_jax():
    code = "import sys; sys.argv = ['jepa-jax', '{}']; from jepa_jax.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'jax' not in sys.modules"
    for flag in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code.format(flag)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_quiet_leaves_errors_alone():
    done = run("models", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run("select", "--quiet", "nowhere", "--rarest", "1", "--output", "x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: nowhere" in done.stderr


def test_help_is_narrow_where_the_terminal_is():
    assert max(map(len, in_process(("models",), 60).splitlines())) <= 60
    assert "wrap" not in inspect.cleandoc(in_process(("models",)))


def test_options_are_said_once():
    for path in ALL:
        names = re.findall(r"^  (--[a-z0-9-]+)", in_process(path), re.M)
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "s3://bucket/a", "--output", "out"),
        ("export", "jepa-tiny", "--output", "s3://bucket/a"),
        ("train", "jepa_tiny", "--data", "images.npz", "--output", "s3://bucket/a"),
        ("demo", "--output", "s3://bucket/a"),
        ("study", "card", "--cifar10", "s3://bucket/a", "--outliers", "b.npz"),
    ],
)
def test_a_store_where_a_local_path_is_wanted_is_refused(command: tuple[str, ...]):
    with pytest.raises(jj.ArgumentError, match=r"s3://bucket/a: here this command takes a path on this machine"):
        PROGRAM(list(command), standalone_mode=False)
