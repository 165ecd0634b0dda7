"""The packages that some commands need beyond those of scoring."""

from __future__ import annotations

from importlib.util import find_spec

from jepa_jax.errors import JobError

EXTRAS = {"analysis": ("sklearn", "scipy", "jinja2"), "study": ("sklearn", "scipy", "jinja2", "matplotlib")}
"""What each extra brings that is looked for; Optax comes with Flax."""


def require_packages(extra: str = "analysis") -> None:
    """Ask for an extra where it is not installed.

    Raises:
        JobError: naming what is missing, and how to get it.
    """
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise JobError(f"this command needs {', '.join(missing)}: pip install 'jepa-jax[{extra}]'.")
