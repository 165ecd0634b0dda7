"""Names that strangers gave, in a page: what turns the direction of reading is shown, and ends with the name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jepa_jax.errors import printable

if TYPE_CHECKING:
    from markupsafe import Markup

FIRST_STRONG_ISOLATE, POP_ISOLATE = "\u2068", "\u2069"


def isolated(name: str) -> str:
    """A name within a sentence, an attribute or a label, where no element can stand."""
    return f"{FIRST_STRONG_ISOLATE}{printable(name)}{POP_ISOLATE}"


def bdi(name: object) -> Markup:
    """A name as an element of its own direction; the filter ``bdi`` of the template."""
    from markupsafe import Markup

    return Markup("<bdi>{}</bdi>").format(printable(str(name)))
