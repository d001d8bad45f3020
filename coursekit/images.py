"""Picture files to tensors and back: (b, 3, h, w) float32 in [-1, 1], on the CPU.

`load` reads any common photograph, `save` writes one, `photograph` gives a bundled sample, `grid`
and `enlarge` lay pictures out. Colour profiles are not applied: numbers are taken as sRGB.

torch is imported where a tensor is made, so that a command can refuse a bad file at once.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

MIN_SIDE = 8  # pixels; a smaller picture has nothing to show
MAX_SIDE = 16_000
MAX_PIXELS = 100_000_000  # a 100-megapixel camera; decoded, it needs 300 MB
READS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
WRITES = (".jpeg", ".jpg", ".png", ".webp")
DISPLAY_LIMIT = 16.0  # noisy states reach about 6; a value of 255 comes from another range

# Sample photographs that scikit-image installs with itself (public domain or CC0), and the square
# to cut out of each: left, top, side.
PHOTOGRAPHS = {
    "astronaut": ("astronaut.png", (96, 0, 256)),
    "camera": ("camera.png", (100, 40, 300)),
    "cat": ("chelsea.png", (74, 0, 300)),
    "coffee": ("coffee.png", (100, 0, 400)),
    "rocket": ("rocket.jpg", (107, 0, 427)),
}


def read(path: str | Path) -> Image.Image:
    """The first frame of a picture file as an upright 8-bit RGB picture of any size.

    EXIF rotation is applied; transparency goes onto white; 16-bit grey is scaled to 8 bits.
    ValueError names the file when it is missing, a folder, not one of the formats in `READS`,
    truncated, smaller than MIN_SIDE, or larger than MAX_SIDE or MAX_PIXELS. Sizes are judged from
    the header, before anything is decoded.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise _Refused("there is no such file")
        if not path.is_file():
            raise _Refused("not a file: accepted is one picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: the limits here are firm
            with Image.open(path, formats=READS) as image:
                _check_size(*image.size)
                return _to_rgb(ImageOps.exif_transpose(image))
    except _Refused as refused:
        reason, cause = str(refused), None
    except Image.UnidentifiedImageError:
        reason, cause = f"not a picture: accepted are {', '.join(READS)}", None
    except Image.DecompressionBombError:
        reason, cause = f"too large: {_LIMITS}", None
    except PermissionError:
        reason, cause = "no permission to read it", None
    except Exception as problem:  # a damaged file makes Pillow raise nearly anything
        reason, cause = f"damaged or truncated ({' '.join(str(problem).split())})", problem
    raise ValueError(f"path='{path}': {reason}") from cause


_LIMITS = (f"accepted are {MIN_SIDE}..{MAX_SIDE} pixels a side "
           f"and at most {MAX_PIXELS // 10**6} million pixels")


class _Refused(Exception):
    """A refusal of our own, told apart from what Pillow raises."""


def _check_size(width: int, height: int) -> None:
    small, large = min(width, height) < MIN_SIDE, max(width, height) > MAX_SIDE
    if small or large or width * height > MAX_PIXELS:
        raise _Refused(f"too {'small' if small else 'large'} ({width}x{height}): {_LIMITS}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise _Refused("floating-point values of unknown range: accepted are 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16-bit grey at 255
        image = image.convert("I")
        low, high = image.getextrema()
        if low < 0 or high > 65535:
            raise _Refused(f"grey values {low}..{high}: accepted are 16 bits, 0..65535")
        image = image.convert("F").point(lambda v: v * (1 / 257) + 0.5).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def load(path: str | Path, size: int = 64) -> Tensor:
    """A picture file as (1, 3, size, size) float32 in [-1, 1].

    The largest centred square is kept and resized with an antialiasing filter. Accepts size
    8..2048; for what is refused see `read`.
    """
    _check_int("size", size, MIN_SIDE, 2048)
    return _square(read(path), None, size)


def photograph(name: str, size: int = 64) -> Tensor:
    """A sample photograph, (1, 3, size, size) float32 in [-1, 1]; names: see PHOTOGRAPHS."""
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name={name!r} is not known: accepted are {', '.join(PHOTOGRAPHS)}")
    _check_int("size", size, MIN_SIDE, 2048)
    file, (left, top, side) = PHOTOGRAPHS[name]
    box = (left, top, left + side, top + side)
    return _square(read(files("skimage.data") / file), box, size)


def _square(image: Image.Image, box: tuple[int, int, int, int] | None, size: int) -> Tensor:
    import numpy
    import torch

    if box is None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
    image = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    pixels = torch.from_numpy(numpy.array(image))  # h w 3
    return from_uint8(pixels.permute(2, 0, 1)[None])  # 1 3 h w


def check(x: Tensor, name: str = "x", channels: int = 3) -> Tensor:
    """`x` itself if it is a finite float tensor (b, channels, h, w); else TypeError, ValueError."""
    if not hasattr(x, "is_floating_point") or not x.is_floating_point():
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{name} is {kind}: accepted is a floating-point tensor in [-1, 1]")
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: accepted is (b, {channels}, h, w)")
    bad = int((~x.isfinite()).sum())
    if bad:
        raise ValueError(f"{name} has {bad} values that are NaN or infinite: accepted is [-1, 1]")
    return x


def to_uint8(x: Tensor) -> Tensor:
    """(b, 3, h, w) in [-1, 1] -> uint8 0..255, rounded to the nearest.

    Samples and noisy states overshoot: they are clamped, as any display must. Values beyond
    +-DISPLAY_LIMIT are refused: they belong to another range.
    """
    top = check(x).abs().max().item()
    if top > DISPLAY_LIMIT:
        raise ValueError(f"x reaches {top:.4g} in magnitude: accepted is [-1, 1], "
                         f"and an overshoot up to {DISPLAY_LIMIT:g} that is clamped")
    return ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 (b, 3, h, w) -> float32 in [-1, 1]; `to_uint8` gives the same bytes back."""
    if str(getattr(pixels, "dtype", "")) != "torch.uint8":
        kind = getattr(pixels, "dtype", type(pixels).__name__)
        raise TypeError(f"pixels is {kind}: accepted is a uint8 tensor")
    return pixels.float() / 127.5 - 1


def grid(x: Tensor, columns: int, pad: int = 2) -> Tensor:
    """(b, 3, h, w) -> one picture (1, 3, H, W) with `columns` a row, white between them.

    H = rows (h + pad) + pad, W likewise; the last row is filled up with white.
    """
    b, c, h, w = check(x).shape
    _check_int("columns", columns, 1, 1000)
    _check_int("pad", pad, 0, 1000)
    rows = -(-b // columns)
    sheet = x.new_ones(1, c, rows * (h + pad) + pad, columns * (w + pad) + pad)
    for i in range(b):
        top, left = (i // columns) * (h + pad) + pad, (i % columns) * (w + pad) + pad
        sheet[0, :, top:top + h, left:left + w] = x[i]
    return sheet


def enlarge(x: Tensor, factor: int) -> Tensor:
    """(b, 3, h, w) -> (b, 3, factor h, factor w): every pixel becomes a square."""
    _check_int("factor", factor, 1, 64)
    return check(x).repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def save(x: Tensor, path: str | Path) -> Path:
    """Writes one picture (1, 3, h, w) in [-1, 1]; the suffix is one of `WRITES`; returns the path.

    The file appears whole or not at all. OSError says what the disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITES:
        raise ValueError(f"path='{path}' has suffix {path.suffix!r}: accepted: {', '.join(WRITES)}")
    if check(x).shape[0] != 1:
        raise ValueError(f"x holds {x.shape[0]} pictures: accepted is 1 (lay more out with grid)")
    pixels = to_uint8(x)[0].permute(1, 2, 0).cpu().numpy()  # h w 3
    kind = Image.registered_extensions()[path.suffix.lower()]
    with whole(path) as part:
        Image.fromarray(pixels).save(part, format=kind)
    return path


@contextmanager
def whole(path: str | Path):
    """A name to write to that becomes `path` if the block succeeds and vanishes if it does not."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sweep(folder: str | Path) -> None:
    """Deletes what killed processes left of `whole` in a folder; a live one's is let be."""
    for part in Path(folder).rglob(".*.part"):
        number = part.name.split(".")[-2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            part.unlink(missing_ok=True)


def _check_int(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: accepted is a whole number {low}..{high}")
