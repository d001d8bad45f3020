"""What an explorer shows: pictures with headings, a plot with a cursor, and a sentence.

A `Frame` becomes HTML in a few milliseconds: pictures travel in their own size and the browser
enlarges them; a plot is drawn once, and its cursor is laid over it. A `still` is the same content
on paper: one figure with a text alternative, for GitHub, print and screen readers.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import Tensor

from coursekit.classroom import show
from coursekit.images import to_uint8

SIDE = 176  # CSS pixels that a picture is about as wide as
TOP, LINE, GAP, PLOT = 28, 13, 8, 280  # pixels on a still: heights, and the gap
STILL_SIDE, STILL_WIDTH = 144, 600  # pixels on a still: a picture at most, the whole at least
INK, SPOT = "#222222", "#F0E442"


@dataclass(frozen=True, eq=False)
class Picture:
    """pixels (3, h, w) in [-1, 1], what lies beyond is clamped; alt says what there is to see."""

    heading: str
    pixels: Tensor
    alt: str

    @cached_property
    def image(self) -> Image.Image:
        pixels = to_uint8(self.pixels.clamp(-1, 1)[None])[0]
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())

    def html(self) -> str:
        w, h = self.image.size
        factor = max(1, round(SIDE / w))
        return (
            '<figure style="margin:0;line-height:1.5">'
            f"<figcaption>{escape(self.heading)}</figcaption>"
            # decoded before it is shown, or the old picture would flash white
            f'<img decoding="sync" width="{factor * w}" height="{factor * h}"'
            f' style="image-rendering:pixelated" alt="{escape(self.alt)}"'
            f' src="{data_url(png(self.image))}"></figure>'
        )


@dataclass(frozen=True, eq=False)
class Plot:
    """Curves over one axis; name -> (xs, ys).

    title, xlabel, ylabel, alt: as on any figure, alt in a sentence. log: "", "x", "y" or "xy".
    """

    title: str
    xlabel: str
    ylabel: str
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    alt: str
    log: str = ""

    def draw(self, axes: Axes) -> None:
        for name, (xs, ys) in self.curves.items():
            axes.plot(xs, ys, label=name, markevery=max(1, len(xs) // 8))
        axes.set_title(self.title, fontsize=10)
        axes.set_xlabel(self.xlabel)
        axes.set_ylabel(self.ylabel)
        axes.set_xscale("log" if "x" in self.log else "linear")
        axes.set_yscale("log" if "y" in self.log else "linear")
        axes.grid(alpha=0.3)
        if len(self.curves) > 1:
            axes.legend(fontsize=8)

    def __post_init__(self) -> None:
        with show.style():
            canvas = Canvas((6.4, 2.6), dpi=show.DPI)
            axes = canvas.add_axes((0.11, 0.2, 0.87, 0.68))
            self.draw(axes)
            url = data_url(show.finish(canvas, self.alt).png)
        object.__setattr__(self, "_drawn", (url, axes))  # now, as 0.1 s is long under a slider

    def html(self, at: tuple[float, float] | None) -> str:
        """The plot, with a cursor at the point `at` of its axes."""
        url, axes = self._drawn
        width, height = (int(n) for n in axes.figure.canvas.get_width_height())
        cursor = ""
        if at is not None:
            x, y = axes.transData.transform(at)
            y = min(max(y, axes.bbox.y0), axes.bbox.y1)
            cursor = (
                f'<div style="position:absolute;left:{x - 1:.1f}px;'
                f"top:{height - axes.bbox.y1:.1f}px;height:{axes.bbox.height:.1f}px;"
                f'border-left:2px solid {INK}"></div>'
                f'<div style="position:absolute;left:{x - 6:.1f}px;top:{height - y - 6:.1f}px;'
                "box-sizing:border-box;width:12px;height:12px;border-radius:6px;"
                f'border:2px solid {INK};background:{SPOT}"></div>'
            )
        return (
            f'<div style="position:relative;width:{width}px;margin-top:8px"><img decoding="sync"'
            f' width="{width}" height="{height}" alt="{escape(self.alt)}" src="{url}">{cursor}</div>'
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """One view: rows of pictures, a sentence with the numbers, a plot and where its cursor is."""

    rows: Sequence[Sequence[Picture]]
    text: str
    plot: Plot | None = None
    at: tuple[float, float] | None = None

    def html(self) -> str:
        parts = [
            '<div style="display:flex;flex-wrap:wrap;gap:8px;margin-bottom:8px">'
            + "".join(picture.html() for picture in row) + "</div>" for row in self.rows
        ]
        parts.append(f'<p role="status" style="margin:4px 0">{escape(self.text)}</p>')
        if self.plot is not None:
            parts.append(self.plot.html(self.at))
        return "".join(parts)


def still(
    title: str, rows: Sequence[Sequence[Picture]], alt: str, plot: Plot | None = None
) -> show.Figure:
    """Rows of pictures under a title and a plot below them, as one figure of about 40 KB.

    alt  what there is to see, in words and numbers.
    """
    side = _side(rows[0][0].image.width)
    width = max(STILL_WIDTH, max(len(row) for row in rows) * (side + GAP))
    headings = [GAP + LINE * max(p.heading.count("\n") + 1 for p in row) for row in rows]
    height = TOP + sum(headings) + len(rows) * (side + GAP) + PLOT * (plot is not None)
    with show.style():
        canvas, top = Canvas((width / show.DPI, height / show.DPI), dpi=show.DPI), height - TOP
        canvas.text(GAP / width, 1 - GAP / height, title, va="top", weight="bold")
        for row, heading in zip(rows, headings, strict=True):
            below, top = top - heading, top - heading - side - GAP
            for j, picture in enumerate(row):
                left = GAP / 2 + j * (side + GAP)
                pixels = picture.image.resize((side, side), Image.Resampling.NEAREST)
                canvas.figimage(numpy.asarray(pixels), left, below - side, origin="upper")
                canvas.text((left + side / 2) / width, (below + 3) / height, picture.heading,
                            ha="center", va="bottom", size=7.5)
        if plot:
            at = (70 / width, 55 / height, 1 - 85 / width, (PLOT - 85) / height)
            plot.draw(canvas.add_axes(at))
        return show.finish(canvas, alt)


def _side(pixels: int) -> int:
    """What a picture so wide is shown as: whole multiples, or the squares would be uneven."""
    return pixels * (STILL_SIDE // pixels) if pixels <= STILL_SIDE else STILL_SIDE


def png(image: Image.Image) -> bytes:
    """The fastest compression: a slider should not wait for it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
