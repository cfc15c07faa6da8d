"""Image files of every kind open as they look, or are refused in one line that names them."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from gopro.data.images import heif
from gopro.data.images.image_file import MAX_ASPECT, SUFFIXES, ImageFile, decode, grey_range
from gopro.errors import InputError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters() -> Image.Image:
    """Draw 40 x 24 pixels: red and green above, blue and white below."""
    image = Image.new("RGB", (40, 24))
    for corner, colour in {(0, 0): RED, (20, 0): GREEN, (0, 12): BLUE, (20, 12): WHITE}.items():
        image.paste(colour, (*corner, corner[0] + 20, corner[1] + 12))
    return image


def noise(size: tuple[int, int] = (61, 47)) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        ImageFile(path).open()
    message = str(caught.value)
    assert message.startswith(path.as_posix()) and "\n" not in message
    return message


def test_name_is_the_path_with_forward_slashes(tmp_path: Path):
    assert ImageFile(tmp_path / "a" / "b.jpg").name == (tmp_path / "a/b.jpg").as_posix()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".ppm", ".gif"])
def test_lossless_formats_are_exact(tmp_path: Path, suffix: str):
    path = tmp_path / f"image{suffix}"
    quarters().save(path, lossless=True)  # only WebP has this option
    opened = ImageFile(path).open()
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), np.asarray(quarters()))


@pytest.mark.parametrize("suffix", [".jpg", ".jpe", ".jfif", ".avif"])
def test_lossy_formats_are_close(tmp_path: Path, suffix: str):
    path = tmp_path / f"image{suffix}"
    noise().save(path, quality=95)
    difference = np.asarray(ImageFile(path).open(), int) - np.asarray(noise(), int)
    assert np.abs(difference).mean() < 6  # an unrelated image differs by 60 and more


def test_every_accepted_suffix_can_be_saved_and_opened(tmp_path: Path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    pillow_heif.register_heif_opener()
    for suffix in SUFFIXES:
        path = tmp_path / f"p{suffix.upper()}"
        (quarters().convert("L") if suffix == ".pgm" else quarters()).save(path)
        assert ImageFile(path).open().size == (40, 24)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int):
    stored_as = {  # how a camera stores the upright image under each orientation
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"turned{suffix}"
    options = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    stored_as[orientation](quarters()).save(path, exif=exif, **options)
    opened = ImageFile(path).open()
    assert opened.size == (40, 24)
    assert np.abs(np.asarray(opened, int) - np.asarray(quarters(), int)).max() <= 12


def test_transparency_is_laid_on_white(tmp_path: Path):
    half = quarters().convert("RGBA")
    half.paste((0, 0, 0, 0), (0, 0, 20, 12))  # transparent black where red was
    half.putpixel((39, 0), (0, 0, 0, 128))
    half.save(tmp_path / "rgba.png")
    opened = ImageFile(tmp_path / "rgba.png").open()
    assert opened.getpixel((5, 5)) == WHITE and opened.getpixel((25, 5)) == GREEN
    assert opened.getpixel((39, 0)) == (127, 127, 127)

    Image.new("LA", (9, 9), (0, 0)).save(tmp_path / "la.png")
    assert ImageFile(tmp_path / "la.png").open().getpixel((4, 4)) == WHITE

    for suffix in ("png", "gif"):
        palette = quarters().quantize(8)
        red = palette.getpixel((0, 0))
        palette.save(tmp_path / f"p.{suffix}", transparency=red)
        opened = ImageFile(tmp_path / f"p.{suffix}").open()
        assert opened.getpixel((5, 5)) == WHITE and opened.getpixel((25, 5)) == GREEN

    Image.new("L", (9, 9), 40).save(tmp_path / "keyed.png", transparency=40)
    assert ImageFile(tmp_path / "keyed.png").open().getpixel((4, 4)) == WHITE
    Image.new("RGB", (9, 9), BLUE).save(tmp_path / "colour-keyed.png", transparency=BLUE)
    assert ImageFile(tmp_path / "colour-keyed.png").open().getpixel((4, 4)) == WHITE


def test_grey_bilevel_and_palette_images_are_converted(tmp_path: Path):
    grey = noise().convert("L")
    grey.save(tmp_path / "l.png")
    assert np.array_equal(np.asarray(ImageFile(tmp_path / "l.png").open()), np.stack([np.asarray(grey)] * 3, -1))
    grey.convert("1").save(tmp_path / "1.png")
    assert set(np.unique(np.asarray(ImageFile(tmp_path / "1.png").open()))) == {0, 255}
    palette = noise().quantize(32)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(np.asarray(ImageFile(tmp_path / "p.png").open()), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, name: str):
    ramp = np.linspace(0, 65535, 300).round().astype(np.uint16).reshape(1, -1).repeat(2, 0)
    Image.fromarray(ramp).save(tmp_path / name)
    opened = np.asarray(ImageFile(tmp_path / name).open())
    assert np.array_equal(opened, np.stack([np.round(ramp / 257).astype(np.uint8)] * 3, -1))


def test_big_endian_sixteen_bits_are_scaled(tmp_path: Path):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    image = Image.frombytes("I;16B", (16, 16), ramp.astype(">u2").tobytes())
    image.save(tmp_path / "big.tif")
    opened = np.asarray(ImageFile(tmp_path / "big.tif").open())
    assert np.array_equal(opened[..., 0], np.round(ramp / 257).astype(np.uint8))


def test_mode_i_within_sixteen_bits_is_scaled_and_beyond_refused(tmp_path: Path):
    Image.fromarray(np.array([[0, 30000], [65535, 257]], np.int32)).save(tmp_path / "i.tif")
    assert np.asarray(ImageFile(tmp_path / "i.tif").open())[..., 1].tolist() == [[0, 117], [255, 1]]
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "wide.tif")
    assert "32-bit" in refusal(tmp_path / "wide.tif")


def test_floating_point_is_refused(tmp_path: Path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    assert "floating-point samples; save it" in refusal(tmp_path / "f.tif")


def test_levels_stretch_grey_of_any_depth(tmp_path: Path):
    twelve_bits = np.array([[0, 2048, 4095, 65535]], np.uint16)
    Image.fromarray(twelve_bits).save(tmp_path / "12.png")
    dark = ImageFile(tmp_path / "12.png")
    bright = ImageFile(tmp_path / "12.png", levels=(0, 4095))
    assert np.asarray(dark.open())[0, :, 0].tolist() == [0, 8, 16, 255]
    assert np.asarray(bright.open())[0, :, 0].tolist() == [0, 128, 255, 255]
    assert dark.digest() != bright.digest() != ImageFile(tmp_path / "12.png", levels=(0, 4094)).digest()
    assert grey_range(tmp_path / "12.png") == (0, 65535)
    Image.fromarray(np.array([[-1000, 0, 1000, 70000]], np.int32)).save(tmp_path / "32.tif")
    hounsfield = ImageFile(tmp_path / "32.tif", levels=(-1000, 1000)).open()
    assert np.asarray(hounsfield)[0, :, 1].tolist() == [0, 128, 255, 255]
    Image.fromarray(np.array([[0, 0.25, 1, np.inf]], np.float32)).save(tmp_path / "f.tif")
    assert np.asarray(ImageFile(tmp_path / "f.tif", levels=(0, 0.5)).open())[0, :, 2].tolist() == [0, 128, 255, 255]
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(InputError, match=r"nan\.tif: has samples that are not a number"):
        ImageFile(tmp_path / "nan.tif", levels=(0, 1)).open()


def test_levels_leave_images_of_eight_bits_as_they_are(tmp_path: Path):
    for name, image in {"l.png": noise().convert("L"), "rgb.png": noise()}.items():
        image.save(tmp_path / name)
        opened = ImageFile(tmp_path / name, levels=(0, 4095)).open()
        assert np.array_equal(np.asarray(opened), np.asarray(image.convert("RGB")))
        assert grey_range(tmp_path / name) is None


def test_heic_is_read_by_its_content_whatever_its_name(tmp_path: Path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    pillow_heif.register_heif_opener()
    noise().save(tmp_path / "IMG_1.HEIC", quality=95)
    (tmp_path / "IMG_1.HEIC").rename(tmp_path / "IMG_1.JPG")
    difference = np.asarray(ImageFile(tmp_path / "IMG_1.JPG").open(), int) - np.asarray(noise(), int)
    assert np.abs(difference).mean() < 10  # colours are stored at half the size; an unrelated image differs by 60


def test_heic_without_the_plugin_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "IMG_1.JPG").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setattr(heif, "reads_heif", lambda: False)
    assert "HEIC, which needs pillow-heif: pip install '.[heif]'" in refusal(tmp_path / "IMG_1.JPG")


def test_cmyk_is_converted(tmp_path: Path):
    for name in ("cmyk.jpg", "cmyk.tif"):
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / name)  # all magenta and yellow: red
        red, green, blue = ImageFile(tmp_path / name).open().getpixel((8, 8))  # pyright: ignore
        assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png", "pages.tif"])
def test_an_animation_opens_as_its_first_frame(tmp_path: Path, name: str):
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)  # only WebP has this option
    assert ImageFile(tmp_path / name).open().getpixel((10, 10)) == RED


def test_the_content_decides_the_format_not_the_suffix(tmp_path: Path):
    quarters().save(tmp_path / "really.jpg", format="PNG")
    assert np.array_equal(np.asarray(ImageFile(tmp_path / "really.jpg").open()), np.asarray(quarters()))


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "text.jpg").write_text("these are not the pixels you are looking for")
    assert "not an image" in refusal(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    assert "empty" in refusal(tmp_path / "empty.jpg")
    assert "no such image" in refusal(tmp_path / "missing.jpg")
    (tmp_path / "folder.jpg").mkdir()
    refusal(tmp_path / "folder.jpg")
    (tmp_path / "script.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )  # would start Ghostscript
    assert "not an image" in refusal(tmp_path / "script.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp", ".avif", ".ppm"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str):
    buffer = io.BytesIO()
    noise((200, 150)).save(buffer, format=Image.registered_extensions()[suffix])
    for share in (0.3, 0.6, 0.9):
        path = tmp_path / f"cut{share}{suffix}"
        path.write_bytes(buffer.getvalue()[: int(share * buffer.tell())])
        assert "read" in refusal(path)


def encoded(save: Callable[[io.BytesIO], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


ENCODED = {
    "jpeg": encoded(lambda f: noise().save(f, "JPEG")),
    "progressive": encoded(lambda f: noise().save(f, "JPEG", progressive=True)),
    "png": encoded(lambda f: noise().save(f, "PNG")),
    "palette": encoded(lambda f: noise().quantize(16).save(f, "PNG", transparency=3)),
    "gif": encoded(lambda f: noise().save(f, "GIF")),
    "bmp": encoded(lambda f: noise().save(f, "BMP")),
    "tiff": encoded(lambda f: noise().save(f, "TIFF", compression="tiff_lzw")),
    "webp": encoded(lambda f: noise().save(f, "WEBP")),
    "ppm": encoded(lambda f: noise().save(f, "PPM")),
}


@settings(max_examples=300)
@given(
    kind=st.sampled_from(sorted(ENCODED)),
    hits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    header=st.booleans(),
    keep=st.floats(0.02, 1),
)
def test_damaged_bytes_give_an_image_or_an_input_error(kind, hits, header, keep):
    content = bytearray(ENCODED[kind])
    for where, byte in hits:
        content[int(where * (min(len(content), 80) if header else len(content)))] = byte
    try:
        image = decode(io.BytesIO(content[: int(keep * len(content))]), "upload", max_pixels=10**6)
    except InputError as error:
        assert str(error).startswith("upload: ") and "\n" not in str(error)
    else:
        assert image.mode == "RGB" and min(image.size) > 0


def test_huge_images_are_refused_before_they_are_decoded(tmp_path: Path):
    path = tmp_path / "huge.png"
    Image.new("1", (16000, 16000)).save(path)  # a few kB that would become a gigabyte
    assert "pixels" in refusal(path)
    quarters().save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png: 40 x 24 is more than 900 pixels"):
        decode(tmp_path / "small.png", "small.png", max_pixels=900)
    assert decode(tmp_path / "small.png", "small.png", max_pixels=960).size == (40, 24)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485  # PIL's own limit is global and must not change


def test_elongated_images_are_refused(tmp_path: Path):
    Image.new("RGB", (2 * MAX_ASPECT, 2)).save(tmp_path / "long.png")
    assert ImageFile(tmp_path / "long.png").open().size == (2 * MAX_ASPECT, 2)
    Image.new("RGB", (2, 2 * MAX_ASPECT + 1)).save(tmp_path / "longer.png")
    assert "elongated" in refusal(tmp_path / "longer.png")


def test_many_threads_open_the_same_image(tmp_path: Path):
    noise((300, 200)).save(tmp_path / "p.jpg")
    image = ImageFile(tmp_path / "p.jpg")
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: image.open().tobytes(), range(16)))
    assert len(set(opened)) == 1
