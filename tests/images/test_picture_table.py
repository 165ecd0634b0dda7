"""Every format, mode and depth: as its 8-bit twin, or refused with one reason; docs/pictures.md says which."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from picture_kinds import TWIN, Kind, chunk, kinds, levels, outcome, png, table, tiff
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jepa_jax.errors import ImageError
from jepa_jax.images.decoding import open_encoded
from jepa_jax.images.preprocessing import to_rgb

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pictures.md"


def name(kind: Kind) -> str:
    """Of a test."""
    return "-".join(
        part.replace(", ", "_").replace(" ", "_") for part in (kind.format, kind.mode, kind.bits, kind.variant)
    )


@pytest.mark.parametrize("kind", kinds(), ids=name)
def test_a_picture_is_its_twin_or_refused_with_one_reason(kind: Kind):
    found = outcome(kind)
    if found == TWIN:
        return
    assert found.startswith("refused: the ")
    assert found.endswith("convert it to an 8-bit PNG.")
    assert "\n" not in found


@pytest.mark.parametrize(
    ("format", "mode", "bits"),
    [
        ("PNG", "grey, a transparent value", "16"),
        ("PNG", "grey, a transparent value", "2"),
        ("PNG", "RGB, a transparent value", "16"),
        ("PNG", "grey, alpha", "16"),
        ("TIFF", "BlackIsZero", "12"),
        ("TIFF", "BlackIsZero", "16"),
        ("TIFF", "WhiteIsZero", "16"),
        ("TIFF", "RGB, alpha that is multiplied in", "16"),
        ("JPEG2000", "grey", "12"),
        ("AVIF", "RGB", "10"),
        ("AVIF", "RGB, alpha", "12"),
        ("PPM", "grey", "maximum 1023"),
        ("PPM", "grey", "maximum 65535"),
    ],
)
def test_what_is_deep_and_common_is_not_refused(format: str, mode: str, bits: str):
    assert TWIN in {outcome(kind) for kind in kinds() if (kind.format, kind.mode, kind.bits) == (format, mode, bits)}


def test_the_page_is_current():
    assert PAGE.read_text() == table(), "run python tests/support/picture_kinds.py > docs/pictures.md"


# As other programs write them.


def grey() -> np.ndarray:
    """A ramp with a dark patch."""
    picture = np.tile(np.linspace(20, 200, 96).astype(np.uint8), (72, 1))
    picture[20:50, 30:60] = 90
    return picture


def pixels(content: bytes) -> np.ndarray:
    """What an encoder's recipe starts from."""
    with open_encoded(content) as image:
        return np.asarray(to_rgb(image))


def file_of(values: np.ndarray, format: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format, **options)
    return stream.getvalue()


def test_tifffiles_white_is_zero():
    stream = io.BytesIO()
    tifffile.imwrite(stream, 65535 - grey().astype(np.uint16) * 257, photometric="miniswhite")
    np.testing.assert_array_equal(pixels(stream.getvalue())[..., 0], grey())


def test_dark_values_of_16_bits_are_dark_in_every_format():
    dark = grey().astype(np.uint16)
    content = b"P5 96 72 65535\n" + dark.astype(">u2").tobytes()
    expected = np.rint(dark / 257)[..., None].repeat(3, axis=-1)
    for file in (content, file_of(dark, "PNG"), file_of(dark, "TIFF"), file_of(dark, "PPM")):
        np.testing.assert_array_equal(pixels(file), expected)


def test_a_transparent_value_of_16_bits_is_that_of_its_twin():
    deep = file_of(grey().astype(np.uint16) * 257, "PNG", transparency=90 * 257)
    twin = file_of(grey(), "PNG", transparency=90)
    np.testing.assert_array_equal(pixels(deep), pixels(twin))
    assert np.mean(pixels(deep) == 255) > 0.1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_set_upright_too(orientation: int, order: str):
    values, twin = levels(1, 65535)
    tags = {274: ("H", (orientation,))}
    found = pixels(tiff(values, 16, 1, order, tags=tags))
    np.testing.assert_array_equal(found, pixels(tiff(twin, 8, 1, order, tags=tags)))
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)
    found, expected = (
        pixels(png(v, bits, 0, chunk(b"eXIf", exif))) for v, bits in ((values, 16), (twin.astype(int), 8))
    )
    np.testing.assert_array_equal(found, expected)
    assert found.shape[:2] == (values.shape[:2] if orientation < 5 else values.shape[1::-1])


def test_a_picture_that_was_decoded_before_is_the_same():
    for kind in kinds():
        if kind.format in ("TIFF", "PPM", "AVIF") and kind.exactly and outcome(kind) == TWIN:
            with open_encoded(kind.content) as image:
                image.load()
                np.testing.assert_array_equal(np.asarray(to_rgb(image)), kind.twin)


def test_a_palette_of_transparent_colours_is_laid_over_white():
    _, twin = levels(4, 255)
    picture = Image.fromarray(twin).quantize(64, Image.Quantize.FASTOCTREE)
    assert picture.palette is not None
    assert picture.palette.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(to_rgb(picture)), np.asarray(to_rgb(picture.convert("RGBA"))))


def test_integers_of_no_known_range_are_refused():
    with pytest.raises(ImageError, match="mode 'I' with values from 7 to 7, whose range is unknown"):
        to_rgb(Image.new("I", (4, 4), 7))


def test_a_thumbnail_before_its_picture_is_not_taken_for_it():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(np.zeros((8, 8), np.uint8), photometric="minisblack", subfiletype=1)
        file.write(np.zeros((16, 16), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="begins with a reduced copy"):
        to_rgb(open_encoded(stream.getvalue()))


def test_long_notes_are_no_reason_to_refuse_a_picture():
    image, notes = Image.new("RGB", (4, 4), (9, 8, 7)), PngInfo()
    notes.add_text("about", "a" * 2**21, zip=True)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=notes)
    np.testing.assert_array_equal(to_rgb(open_encoded(stream.getvalue())), np.asarray(image))
