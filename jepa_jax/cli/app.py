"""The application itself: consoles, and what happens to an error.

Exit statuses:

    0          done
    1          the machine's fault, or one of this program's own
    2          a mistake that the user can mend, or a job that cannot go on; the message says how
    3          the job is done, and no record has a score: failures.parquet says why
    128 + n    signal n stopped it
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import Annotated, Any

import typer
from PIL import Image
from rich.markup import escape

from jepa_jax._version import __version__
from jepa_jax.cli.compiled import keep_compiled_programs
from jepa_jax.cli.help import Command, Group
from jepa_jax.cli.interrupts import heed_interrupts
from jepa_jax.cli.streams import TolerantConsole, print_anything
from jepa_jax.errors import JepaJaxError
from jepa_jax.paths import unreachable

NOTHING_SCORED = 3
"""Exit status of a job that is done and has no score."""

DEBUG = "JEPA_JAX_DEBUG"
"""Environment variable that asks for tracebacks, as ``--debug`` does; processes that are started here inherit it."""

QUIET = "JEPA_JAX_QUIET"
"""Environment variable that asks for silence, as ``--quiet`` does; processes that are started here inherit it."""


class App(typer.Typer):
    """Commands whose help is that of `cli.help`, and that take ``-h`` as well."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """As Typer's."""
        settings.setdefault("cls", Command)
        return super().command(name, **settings)


app = App(
    cls=Group,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="""JEPA-SCORE in JAX: data density from the Jacobian spectra of pretrained encoders.

    Any command takes --quiet, which prints nothing but errors, and --debug, which shows the whole traceback of an
    error before its sentence. `jepa-jax COMMAND --help` has the options of one.""",
)
console = TolerantConsole()
errors = TolerantConsole(stderr=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"jepa-jax {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """What stands before the command; its help is that of the program."""


def main() -> None:
    """Run the command line; an error is one sentence and an exit status, see above."""
    print_anything()
    heed_interrupts()
    _take("--debug", DEBUG)
    _take("--quiet", QUIET)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused with a reason
    for shown in (console, errors):
        if not shown.width:  # COLUMNS=0, of a terminal that does not know how wide it is
            shown.width = 80
    console.quiet = bool(os.environ.get(QUIET))
    keep_compiled_programs()
    try:
        app()
    except JepaJaxError as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        sys.exit(130)
    except OSError as error:
        _end(unreachable(error) or str(error) or type(error).__name__, 1)
    except MemoryError:
        _end("memory ran out; what is written is whole, and the same command goes on.", 1)
    except ImportError as error:
        _end(f"a package is missing or does not fit: {error}", 1)
    except Exception as error:  # what a library may raise is no closed set
        if lost := unreachable(error):
            _end(lost, 1)
        said = " ".join(str(error).split())[:500]
        _end(f"unexpected {type(error).__name__}: {said or 'no message'}. --debug shows the traceback.", 1)


def _take(flag: str, variable: str) -> None:
    """A flag may stand anywhere on the command line, but behind ``--``."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    if flag in sys.argv[1:end]:
        sys.argv[1:end] = [argument for argument in sys.argv[1:end] if argument != flag]
        os.environ[variable] = "1"


def _end(message: str, status: int) -> None:
    if os.environ.get(DEBUG):
        errors.print(traceback.format_exc(), soft_wrap=True, highlight=False, markup=False)
    errors.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    sys.exit(status)
