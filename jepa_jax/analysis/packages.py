"""The packages that analysis needs beyond those of scoring."""

from __future__ import annotations

from importlib.util import find_spec

from jepa_jax.errors import JobError


def require_packages() -> None:
    """Ask for the ``analysis`` extra where it is not installed.

    Raises:
        JobError: naming what is missing, and how to get it.
    """
    missing = [name for name in ("sklearn", "scipy", "jinja2") if find_spec(name) is None]
    if missing:
        raise JobError(f"this command needs {', '.join(missing)}: pip install 'jepa-jax[analysis]'.")
