"""Pictures in and out: every kind of file, every refusal, and nothing half-written."""

import io
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from coursekit import images


def picture(mode="RGB", size=(40, 30), **info):
    """A picture with a different value in every pixel and channel."""
    w, h = size
    ramp = numpy.add.outer(numpy.arange(h) * 3, numpy.arange(w) * 4) % 256
    rgb = numpy.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2).astype(numpy.uint8)
    return Image.fromarray(rgb).convert(mode)


def write(folder, image, name="x.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


# ---- what is accepted

@pytest.mark.parametrize("mode, name", [
    ("1", "x.png"), ("L", "x.png"), ("LA", "x.png"), ("P", "x.gif"), ("P", "x.png"),
    ("RGB", "x.jpg"), ("RGB", "x.webp"), ("RGB", "x.bmp"), ("RGB", "x.ppm"), ("RGB", "x.tif"),
    ("RGBA", "x.png"), ("RGBA", "x.webp"), ("CMYK", "x.jpg"), ("CMYK", "x.tif"),
    ("YCbCr", "x.jpg"), ("I;16", "x.png"), ("I", "x.tif"),
])
def test_any_mode_becomes_rgb_in_range(tmp_path, mode, name):
    source = picture("L").convert("I") if mode.startswith("I") else picture(mode)
    if mode == "I;16":
        source = Image.fromarray(numpy.array(picture("L")).astype(numpy.uint16) * 257)
    x = images.load(write(tmp_path, source, name), 32)
    assert x.shape == (1, 3, 32, 32) and x.dtype == torch.float32
    assert x.min() >= -1 and x.max() <= 1 and (x.max() - x.min() > 0.2 or mode == "I")


@pytest.mark.parametrize("off", [-120, 0, 120])
def test_sixteen_bit_grey_is_scaled_and_rounded_not_clipped(tmp_path, off):
    grey = numpy.array(picture("L", (32, 32)))
    sixteen = (grey.astype(numpy.int32) * 257 + off).clip(0, 65535).astype(numpy.uint16)
    deep = write(tmp_path, Image.fromarray(sixteen), "deep.png")
    flat = write(tmp_path, Image.fromarray(grey), "flat.png")
    assert_close(images.load(deep, 32), images.load(flat, 32), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_goes_onto_white(tmp_path, mode):
    clear = Image.new(mode, (16, 16))  # black and fully transparent
    assert_close(images.load(write(tmp_path, clear), 16), torch.ones(1, 3, 16, 16))
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 51))  # a fifth of black
    x = images.load(write(tmp_path, half), 16)
    assert_close(x, torch.full_like(x, 2 * 204 / 255 - 1))


def test_transparent_palette_goes_onto_white(tmp_path):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    path = write(tmp_path, image, transparency=0)
    assert_close(images.load(path, 16), torch.ones(1, 3, 16, 16))


def test_exif_rotation_is_applied(tmp_path):
    image = picture(size=(32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    turned = images.load(write(tmp_path, image, exif=exif.tobytes()), 32)
    plain = images.load(write(tmp_path, image, "plain.png"), 32)
    assert_close(turned, plain.rot90(-1, dims=(2, 3)))
    assert not torch.allclose(turned, plain)


def test_the_centre_square_is_kept(tmp_path):
    wide = Image.new("RGB", (48, 16), "red")
    wide.paste("lime", (16, 0, 32, 16))
    x = images.load(write(tmp_path, wide), 16)
    assert_close(x, torch.tensor([-1.0, 1, -1]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    x = images.load(write(tmp_path, wide.rotate(90, expand=True)), 16)
    assert_close(x[0, :, 8, 8], torch.tensor([-1.0, 1, -1]))


def test_shrinking_is_antialiased(tmp_path):
    board = numpy.indices((256, 256)).sum(0) % 2 * 255
    x = images.load(write(tmp_path, Image.fromarray(board.astype(numpy.uint8))), 32)
    assert x.abs().max() < 0.05  # one pixel in eight, taken as it is, would be -1 or 1


def test_every_photograph_is_installed_with_scikit_image():
    for name in images.PHOTOGRAPHS:
        x = images.photograph(name, 32)
        assert x.shape == (1, 3, 32, 32) and x.std() > 0.1


# ---- what is refused, with one line that names the file

def header_only_png(width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg_bytes():
    buffer = io.BytesIO()
    picture(size=(200, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("content, reason", [
    (b"", "not a picture"),
    (b"a shopping list", "not a picture"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture"),
    (header_only_png(1, 1), "too small (1x1)"),
    (header_only_png(7, 300), "too small (7x300)"),
    (header_only_png(20_000, 20), "too large (20000x20)"),
    (header_only_png(15_000, 15_000), "too large"),
    (header_only_png(60_000, 60_000), "too large"),
    (header_only_png(64, 64), "damaged or truncated"),
    (jpeg_bytes()[:900], "damaged or truncated"),
    (jpeg_bytes()[:30], "damaged or truncated"),
], ids=["empty", "text", "postscript", "1x1", "narrow", "20000-wide", "225-megapixel", "bomb",
        "no-data", "cut", "cut-in-header"])
def test_bad_files_are_refused(tmp_path, content, reason):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refusal:
        images.load(path)
    line = str(refusal.value)
    assert str(path) in line and reason in line and "\n" not in line


def test_limits_are_stated(tmp_path):
    path = tmp_path / "wide.png"
    path.write_bytes(header_only_png(20_000, 20))
    with pytest.raises(ValueError, match=f"{images.MIN_SIDE}..{images.MAX_SIDE} pixels"):
        images.load(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        images.load(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="not a file"):
        images.load(tmp_path)


def test_unranged_greys_are_refused(tmp_path):
    path = write(tmp_path, picture("L").convert("F"), "x.tif")
    with pytest.raises(ValueError, match="floating-point"):
        images.load(path)
    deep = Image.fromarray(numpy.full((16, 16), 70_000, dtype=numpy.int32))
    with pytest.raises(ValueError, match="0..65535"):
        images.load(write(tmp_path, deep, "y.tif"))


@pytest.mark.parametrize("size", [0, 7, 4096, 64.0, True])
def test_bad_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size=.*8..2048"):
        images.photograph("cat", size)


def test_unknown_photograph_lists_the_known():
    with pytest.raises(ValueError, match="'dog'.*astronaut, camera, cat"):
        images.photograph("dog")


# ---- tensors

def test_bytes_survive_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    x = images.from_uint8(pixels)
    assert x.min() == -1 and x.max() == 1
    assert torch.equal(images.to_uint8(x), pixels)


def test_to_uint8_clamps_an_overshoot():
    x = torch.tensor([-5.0, 0.0, 1.3]).view(1, 3, 1, 1)
    assert images.to_uint8(x).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("x, error, words", [
    (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), TypeError, "uint8"),
    (numpy.zeros((1, 3, 4, 4)), TypeError, "accepted is a floating-point tensor"),
    (torch.zeros(3, 4, 4), ValueError, r"\(3, 4, 4\).*\(b, 3, h, w\)"),
    (torch.zeros(1, 4, 4, 4), ValueError, r"\(1, 4, 4, 4\)"),
    (torch.zeros(0, 3, 4, 4), ValueError, "shape"),
    (torch.tensor([0, float("nan"), float("inf")]).view(1, 3, 1, 1), ValueError, "2 values.*NaN"),
    (torch.full((1, 3, 4, 4), 255.0), ValueError, r"255.*\[-1, 1\]"),
])
def test_bad_tensors_are_refused(x, error, words):
    with pytest.raises(error, match=words):
        images.to_uint8(x)


def test_from_uint8_wants_bytes():
    with pytest.raises(TypeError, match="float32"):
        images.from_uint8(torch.zeros(1, 3, 4, 4))


def test_grid_places_every_picture_and_fills_with_white():
    x = torch.linspace(-1, 0.5, 5).view(5, 1, 1, 1).expand(5, 3, 4, 6)
    sheet = images.grid(x, columns=3, pad=1)
    assert sheet.shape == (1, 3, 2 * 5 + 1, 3 * 7 + 1)
    assert_close(sheet[0, :, 1:5, 8:14], x[1])
    assert_close(sheet[0, :, 6:10, 1:7], x[3])
    assert (sheet[0, :, 6:10, 15:] == 1).all() and (sheet[0, :, 0] == 1).all()
    assert_close(images.grid(x[:1], columns=1, pad=0), x[:1])
    with pytest.raises(ValueError, match="columns=0"):
        images.grid(x, columns=0)


def test_enlarge_repeats_pixels():
    x = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    big = images.enlarge(x, 3)
    assert big.shape == (1, 3, 6, 6)
    assert_close(big[..., ::3, ::3], x)
    assert_close(big[..., 2::3, 1::3], x)


# ---- writing

def test_saved_png_is_read_back_exactly(tmp_path):
    x = images.photograph("cat", 32)
    path = images.save(x, tmp_path / "cat.png")
    assert_close(images.load(path, 32), x, rtol=0, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["cat.png"]


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.webp"])
def test_other_formats_are_near(tmp_path, name):
    x = images.photograph("coffee", 64)
    back = images.load(images.save(x, tmp_path / name), 64)
    assert (back - x).abs().mean() < 0.1


def test_save_refuses_what_it_cannot_write(tmp_path):
    x = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"'.txt'.*\.png"):
        images.save(x, tmp_path / "x.txt")
    with pytest.raises(ValueError, match="2 pictures"):
        images.save(x.expand(2, 3, 8, 8), tmp_path / "x.png")
    with pytest.raises(FileNotFoundError):
        images.save(x, tmp_path / "nowhere" / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_whole_keeps_the_old_file_and_leaves_no_part(tmp_path):
    path = tmp_path / "note.txt"
    with images.whole(path) as part:
        part.write_text("first")
    with pytest.raises(KeyboardInterrupt), images.whole(path) as part:
        part.write_text("seco")
        raise KeyboardInterrupt
    assert path.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_sweep_deletes_what_a_killed_process_left_and_nothing_else(tmp_path):
    (tmp_path / "pages").mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [f".a.html.{os.getpid()}.part", "a.html", f"a.{ended.pid}.part", ".a.part"]
    for name in (*kept, f".a.html.{ended.pid}.part", f"pages/.b.c.html.{ended.pid}.part"):
        (tmp_path / name).write_text("")
    images.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path, generator):
    path = images.save(torch.zeros(1, 3, 64, 64), tmp_path / "x.png")
    before = path.read_bytes()
    noise = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # the write fails half-way, as there
    try:
        with pytest.raises(OSError):
            images.save(noise, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
