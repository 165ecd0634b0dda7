"""From pictures to input: against the image processor that DINOv2 was published with."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from transformers import BitImageProcessorPil

import jepa_jax as jj
from jepa_jax.encoders import PreprocessSpec
from jepa_jax.images.preprocessing import MAX_RESIZED_PIXELS, preprocess, to_rgb

# Both resize to the same 8-bit pixels and then take four float32 operations on values up to 2.7: 4 * 2.7 * 6e-8.
TOLERANCE = 1e-6

DINOV2 = PreprocessSpec()

BUNDLED = Path(skimage.__file__).parent / "data"
"""scikit-image's photographs; these lie in its wheel, and nothing is downloaded."""

PHOTOGRAPHS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
]


@functools.cache
def processor(spec: PreprocessSpec = DINOV2) -> BitImageProcessorPil:
    """The reference, with DINOv2's own settings by default."""
    return BitImageProcessorPil(
        do_convert_rgb=True,
        do_resize=True,
        size={"shortest_edge": spec.resize_shortest},
        resample={"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[spec.interpolation],
        do_center_crop=True,
        crop_size={"height": spec.crop, "width": spec.crop},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    )


def reference(image: Image.Image, spec: PreprocessSpec = DINOV2) -> np.ndarray:
    """What the processor makes of one picture, channels last."""
    return processor(spec)(images=image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)


def ours(image: Image.Image | np.ndarray, spec: PreprocessSpec = DINOV2) -> np.ndarray:
    """One picture through the package."""
    (found,) = preprocess([image], spec)
    assert found.shape == (spec.crop, spec.crop, 3)
    assert found.dtype == np.float32
    return found


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference between two inputs."""
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected)))


# Every kind of file. A maker turns an upright RGB photograph into a picture of some mode; the suffix says in which
# format it is written, with the options.


def with_alpha(photo: Image.Image) -> Image.Image:
    """The photograph, transparent where it is dark."""
    photo.putalpha(photo.convert("L"))
    return photo


def in_mode(mode: str) -> Callable[[Image.Image], Image.Image]:
    """Pillow's own conversion."""
    return lambda photo: photo.convert(mode)


def grey_with_alpha(photo: Image.Image) -> Image.Image:
    """Grey, transparent where it is dark."""
    return with_alpha(photo).convert("LA")


def palette(photo: Image.Image) -> Image.Image:
    """Sixty-four colours."""
    return photo.quantize(64)


KINDS: dict[str, tuple[Callable[[Image.Image], Image.Image], str, dict]] = {
    "rgb_png": (in_mode("RGB"), "png", {}),
    "rgb_jpeg": (in_mode("RGB"), "jpg", {"quality": 90}),
    "rgb_progressive_jpeg": (in_mode("RGB"), "jpg", {"progressive": True, "subsampling": 2}),
    "rgb_webp": (in_mode("RGB"), "webp", {}),
    "rgb_bmp": (in_mode("RGB"), "bmp", {}),
    "rgb_tiff": (in_mode("RGB"), "tif", {"compression": "tiff_lzw"}),
    "rgb_png_with_a_transparent_colour": (in_mode("RGB"), "png", {"transparency": (0, 0, 0)}),
    "ycbcr_tiff": (in_mode("YCbCr"), "tif", {}),
    "cmyk_jpeg": (in_mode("CMYK"), "jpg", {}),
    "cmyk_tiff": (in_mode("CMYK"), "tif", {}),
    "grey_png": (in_mode("L"), "png", {}),
    "grey_jpeg": (in_mode("L"), "jpg", {}),
    "grey_png_with_a_transparent_level": (in_mode("L"), "png", {"transparency": 128}),
    "grey_alpha_png": (grey_with_alpha, "png", {}),
    "rgba_png": (with_alpha, "png", {}),
    "rgba_webp": (with_alpha, "webp", {"lossless": True}),
    "rgba_tiff": (with_alpha, "tif", {}),
    "palette_png": (palette, "png", {}),
    "palette_png_with_a_transparent_entry": (palette, "png", {"transparency": 3}),
    "palette_png_with_alpha_per_entry": (palette, "png", {"transparency": bytes(range(0, 256, 4))}),
    "palette_bmp": (palette, "bmp", {}),
    "palette_gif": (palette, "gif", {}),
    "palette_gif_with_a_transparent_entry": (palette, "gif", {"transparency": 5}),
    "one_bit_png": (in_mode("1"), "png", {}),
    "one_bit_tiff": (in_mode("1"), "tif", {"compression": "group4"}),
}

# Odd, even, wide, tall, smaller than the crop, and large, in pixels.
SIZES = [(255, 333), (500, 257), (301, 121), (97, 241), (451, 227), (161, 160), (63, 301), (299, 299)]


def odd_crop(path: Path, number: int) -> Image.Image:
    """A piece of a photograph of the size that its turn gives, RGB."""
    with Image.open(path) as photo:
        width, height = (min(side, limit) for side, limit in zip(SIZES[number % len(SIZES)], photo.size, strict=True))
        left, top = (photo.width - width) // 3, (photo.height - height) // 3
        return photo.convert("RGB").crop((left, top, left + width, top + height))


def written(photo: Image.Image, kind: str, folder: Path) -> Path:
    """A photograph as a real file of one kind."""
    make, suffix, options = KINDS[kind]
    path = folder / f"{kind}.{suffix}"
    make(photo).save(path, **options)
    return path


def check_file(path: Path, spec: PreprocessSpec = DINOV2) -> None:
    """One file, opened twice, through both."""
    with Image.open(path) as for_us, Image.open(path) as for_them:
        assert largest_difference(ours(for_us, spec), reference(for_them, spec)) <= TOLERANCE


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_equal_the_processor(name):
    check_file(BUNDLED / name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_equals_the_processor(kind, tmp_path):
    number = list(KINDS).index(kind)
    photo = odd_crop(BUNDLED / PHOTOGRAPHS[number % len(PHOTOGRAPHS)], number)
    check_file(written(photo, kind, tmp_path))


def test_every_kind_of_real_photograph_equals_the_processor(photos, tmp_path):
    for number, (kind, path) in enumerate(zip(KINDS, photos[::40], strict=True)):
        check_file(written(odd_crop(path, number), kind, tmp_path))


@pytest.mark.parametrize(
    "spec",
    [
        DINOV2.at_image_size(112),
        DINOV2.at_image_size(98),
        DINOV2.at_image_size(518),
        PreprocessSpec(224, 224, "bicubic", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        PreprocessSpec(256, 224, "bilinear"),
    ],
    ids=["112", "98", "518", "clip", "bilinear"],
)
def test_other_recipes_equal_a_processor_with_their_settings(spec):
    for name in ("chelsea.png", "rocket.jpg", "camera.png"):
        check_file(BUNDLED / name, spec)


def test_every_value_of_a_pixel_is_scaled_as_the_processor_does():
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    spec = PreprocessSpec(16, 16, "bicubic", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    unit = (ramp.astype(np.float64) * (1 / 255)).astype(np.float32)
    expected = (unit - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    np.testing.assert_array_equal(preprocess([ramp], spec)[0], expected)


def test_another_size_keeps_the_share_of_the_image():
    sizes = {size: DINOV2.at_image_size(size).resize_shortest for size in (112, 98, 448, 224, 1)}
    assert sizes == {112: 128, 98: 112, 448: 512, 224: 256, 1: 1}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(width=st.integers(1, 600), height=st.integers(1, 600), seed=st.integers(0, 2**31))
def test_any_size_equals_the_processor(width, height, seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    # A small input, so that a line of pixels does not become millions.
    spec = DINOV2.at_image_size(56)
    found = ours(image, spec)
    assert np.all(np.isfinite(found))
    assert largest_difference(found, reference(image, spec)) <= TOLERANCE


def test_a_batch_is_its_images_one_by_one():
    pictures = [odd_crop(BUNDLED / name, number) for number, name in enumerate(PHOTOGRAPHS[:4])]
    np.testing.assert_array_equal(preprocess(pictures, DINOV2), [ours(picture) for picture in pictures])
    assert preprocess([], DINOV2).shape == (0, 224, 224, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_arrays_are_pictures(mode):
    photo = with_alpha(odd_crop(BUNDLED / "coffee.png", 0)).convert(mode)
    expected, array = ours(photo), np.asarray(photo)
    np.testing.assert_array_equal(ours(array), expected)
    np.testing.assert_array_equal(ours(np.asfortranarray(array)), expected)
    if mode == "L":
        np.testing.assert_array_equal(ours(array[:, :, None]), expected)


# Two departures from the processor.

# What a viewer does with each EXIF orientation, and what undoes it.
TURNS = {
    1: (None, None),
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}
ORIENTATION = 0x0112


def turned(photo: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """The photograph, turned if at all."""
    return photo if turn is None else photo.transpose(turn)


@pytest.mark.parametrize("orientation", TURNS)
def test_a_jpegs_orientation_is_applied_where_the_processor_ignores_it(orientation, tmp_path):
    show, _ = TURNS[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "lying.jpg"
    odd_crop(BUNDLED / "chelsea.png", 2).save(path, exif=exif)
    with Image.open(path) as image:
        found = ours(image)
        upright = turned(image, show)
        # Ours is the processor's on what a viewer shows, by Pillow's transposition and by the table above.
        assert largest_difference(found, reference(ImageOps.exif_transpose(image))) <= TOLERANCE
        assert largest_difference(found, reference(upright.convert("RGB"))) <= TOLERANCE
        departure = np.mean(np.abs(found - reference(image)))
    # Unturned, half the picture's contrast is in the wrong place.
    assert departure == 0 if orientation == 1 else departure > 0.1


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("tif", {}), ("webp", {"lossless": True})])
@pytest.mark.parametrize("orientation", TURNS)
def test_an_orientation_is_undone_in_every_format(orientation, suffix, options, tmp_path):
    _, lay = TURNS[orientation]
    photo = odd_crop(BUNDLED / "rocket.jpg", 1)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"lying.{suffix}"
    turned(photo, lay).save(path, exif=exif, **options)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), np.asarray(photo))


def sixteen_bit(photo: Image.Image) -> np.ndarray:
    """A grey photograph [H, W] from 0 to 65535: the sum of three channels, so that the low bytes matter too."""
    total = np.asarray(photo, np.float64).sum(axis=2)
    return np.rint(total / total.max() * 65535).astype(np.uint16)


@pytest.mark.parametrize(("suffix", "order"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_sixteen_bits_are_scaled_where_the_processor_clips_them(suffix, order, tmp_path):
    values = sixteen_bit(odd_crop(BUNDLED / "coffee.png", 0))
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values.astype(order)).save(path)
    with Image.open(path) as image:
        assert image.mode.startswith("I;16")
        clipped, found = np.asarray(image.convert("RGB")), ours(image)
        # The processor's own conversion: almost every pixel is white.
        assert np.mean(clipped == 255) > 0.9
        assert np.mean(np.abs(found - reference(image))) > 1
    # 65535 / 255 = 257 levels of 16 bits are one of 8; being odd, no value lies halfway between two.
    eight_bit = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    assert largest_difference(found, reference(eight_bit)) <= TOLERANCE


def test_sixteen_bits_keep_black_and_white():
    ends = to_rgb(Image.fromarray(np.array([[0, 128, 129, 65406, 65407, 65535]], np.uint16)))
    np.testing.assert_array_equal(np.asarray(ends)[0, :, 0], [0, 0, 1, 254, 255, 255])


# What cannot be used


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "dtype float32; pass uint8"),
        (np.zeros((8, 8), bool), "dtype bool; pass uint8"),
        (np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\)"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"shape \(1, 8, 8, 3\)"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
        (np.zeros((1, 30000, 3), np.uint8), "30000 x 1: too elongated.*256"),
        (Image.new("L", (1, 30000)), "1 x 30000: too elongated"),
        (np.zeros((0, 8, 3), np.uint8), "8 x 0: it has no pixels"),
        (Image.new("RGB", (0, 8)), "0 x 8: it has no pixels"),
        (Image.new("F", (0, 8)), "0 x 8: it has no pixels"),
        (Image.new("F", (8, 8), 0.5), "mode 'F' with values from 0.5 to 0.5"),
        (Image.new("I", (8, 8), -1), "mode 'I' with values from -1 to -1"),
        (Image.new("I", (8, 8), 65536), "mode 'I' with values from 65536 to 65536"),
        ("picture.png", "is a str; pass a PIL image"),
        (None, "is a NoneType; pass a PIL image"),
    ],
    ids=[
        "float_array",
        "bool_array",
        "two_channels",
        "channels_first",
        "batch",
        "one_axis",
        "very_wide",
        "very_tall",
        "empty_array",
        "empty_image",
        "empty_float_image",
        "float_image",
        "negative_values",
        "more_than_16_bits",
        "path",
        "none",
    ],
)
def test_unfit_images_are_named(image, message):
    with pytest.raises(jj.ImageError, match=rf"^images\[1\]: .*{message}"):
        preprocess([np.zeros((8, 8, 3), np.uint8), image], DINOV2)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_truncated_file_is_named(suffix, tmp_path):
    path = tmp_path / f"half.{suffix}"
    odd_crop(BUNDLED / "astronaut.png", 0).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(jj.ImageError, match=r"^images\[0\]: "), Image.open(path) as image:
        preprocess([image], DINOV2)


def test_the_longest_image_that_fits_is_used():
    white = functools.partial(np.full, fill_value=255, dtype=np.uint8)
    longest = MAX_RESIZED_PIXELS // DINOV2.resize_shortest**2
    np.testing.assert_array_equal(ours(white((1, longest, 3))), ours(white((1, 1, 3))))
    with pytest.raises(jj.ImageError, match="too elongated"):
        ours(white((1, longest + 1, 3)))
