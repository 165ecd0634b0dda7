"""The application itself: consoles, and what happens to an error."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax
import typer
from rich.console import Console
from rich.markup import escape

from jepa_jax.errors import JepaJaxError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="JEPA-SCORE in JAX: data density from the Jacobian spectra of pretrained encoders.",
)
console = Console()
errors = Console(stderr=True)


def keep_compiled_programs() -> None:
    """Turn on JAX's persistent compilation cache, unless ``JAX_COMPILATION_CACHE_DIR`` names another."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jepa_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def main() -> None:
    """Run the command line; a mistake that the user can mend is one message and exit status 2."""
    keep_compiled_programs()
    try:
        app()
    except JepaJaxError as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        sys.exit(130)
    except OSError as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(1)
