"""Arrays that could be read in two ways: one picture, or many of one channel."""

from __future__ import annotations

CHANNELS = (1, 3, 4)
"""How many a picture may have: grey, RGB, RGBA."""


def misread(shape: tuple[int, ...]) -> str | None:
    """Why a uint8 array of this shape is no sure batch [N, H, W] or [N, H, W, C], and what to write; None where it is.

    One picture ``[H, W, 3]`` would be H pictures of three pixels' width, and ``[3, H, W]`` three grey ones.
    """
    if len(shape) == 2:
        return "it is one picture [H, W]; write array[None]"
    if len(shape) == 4 and shape[-1] not in CHANNELS:
        if shape[1] in CHANNELS:
            return "its channels come first; write array.transpose(0, 2, 3, 1)"
        return "its last axis must be the channels, 1, 3 or 4"
    if len(shape) == 3 and shape[-1] in CHANNELS:
        return (
            f"it is one picture [H, W, {shape[-1]}], or {shape[0]} grey ones of width {shape[-1]}; "
            "write array[None] for the one, array[..., None] for the many"
        )
    if len(shape) == 3 and shape[0] in (3, 4):
        return (
            f"it is one picture [{shape[0]}, H, W] with its channels first, or {shape[0]} grey ones; "
            "write array.transpose(1, 2, 0)[None] for the one, array[..., None] for the many"
        )
    return None


def is_one_picture(shape: tuple[int, ...]) -> bool:
    """Whether a uint8 array of this shape is one picture [H, W] or [H, W, C], whoever hands it over.

    ``[H, W, 3]`` is one: grey pictures of three pixels' width are nobody's. Where the first axis may be the channels
    as well, as in ``[3, W, 3]``, it is not said what it is.
    """
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in CHANNELS and shape[0] not in CHANNELS)
