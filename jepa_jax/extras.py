"""The packages that some commands need beyond those of scoring."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from jepa_jax.errors import JobError

ANALYSIS = ("sklearn", "scipy", "jinja2")
EXTRAS = {
    "analysis": ANALYSIS,
    "plots": ("matplotlib",),
    "train": ("optax",),
    "demo": (*ANALYSIS, "skimage"),
    "study": (*ANALYSIS, "matplotlib", "optax"),
}
"""What each extra brings that is looked for."""

_CALLED = {"sklearn": "scikit-learn", "scipy": "SciPy", "jinja2": "Jinja2", "skimage": "scikit-image"}


def require_packages(extra: str = "analysis", needed: Sequence[str] | None = None) -> None:
    """Ask for an extra where what is needed of it is not installed.

    Args:
        extra: of this package.
        needed: the modules of it that are used now; by default all.

    Raises:
        JobError: naming what is missing, and how to get it.
    """
    missing = [name for name in (EXTRAS[extra] if needed is None else needed) if find_spec(name) is None]
    if missing:
        names = " and ".join([_CALLED.get(name, name) for name in missing])
        raise JobError(f"this needs {names}, not installed here: pip install 'jepa-jax[{extra}]'.")
