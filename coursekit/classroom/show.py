"""Figures for the notebooks and the tour: contact sheets, curves and tables.

Every figure carries words for readers who cannot see it: `alt` has no default. Colours are those
of Okabe & Ito (2008), which colour-blind readers tell apart; lines differ in their markers too.
Drawing uses no global state of matplotlib, and the same input gives the same bytes.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from PIL import Image, ImageColor
from torch import Tensor

from coursekit.images import check, enlarge, grid, to_uint8, whole

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS, marker=MARKERS),
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "grid.alpha": 0.3,
    "font.family": "DejaVu Sans", "font.size": 10, "figure.facecolor": "white",
    "image.interpolation": "nearest", "legend.frameon": False, "lines.markersize": 5,
}
DPI = 100
NOTEBOOK_COLOURS = 128
LINE, GAP, PAD = 15, 7, 3  # pixels: a line of text, around text, between pictures


@dataclass(frozen=True)
class Figure:
    """A finished picture: PNG bytes, its size in pixels, and the same said in words.

    In a notebook it shows itself, as HTML: there an image output cannot carry alt text.
    """

    png: bytes = field(repr=False)
    width: int
    height: int
    alt: str
    caption: str = ""

    def save(self, path: str | Path) -> Path:
        """Writes the PNG, whole or not at all."""
        with whole(path) as part:
            part.write_bytes(self.png)
        return Path(path)

    def tag(self, source: str) -> str:
        """An HTML figure whose picture lies at `source`."""
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return (f'<figure><img src="{html.escape(source)}" width="{self.width}" '
                f'height="{self.height}" alt="{html.escape(self.alt)}">{caption}</figure>')

    def _repr_html_(self) -> str:
        return self.tag("data:image/png;base64," + base64.b64encode(few_colours(self.png)).decode())


def few_colours(png: bytes) -> bytes:
    """The same picture in NOTEBOOK_COLOURS, or as it was where that is no shorter.

    A notebook keeps every picture it shows, and noise and film grain hardly compress: a quarter
    of the length, for a difference that takes a search to find. Half as many colours again, and
    skies and skins fall into flat patches. The colours of lines are always among them: beside
    large pictures, two thin lines would share one.
    """
    stream, picture = io.BytesIO(), Image.open(io.BytesIO(png)).convert("RGB")
    chosen = picture.quantize(NOTEBOOK_COLOURS - len(COLOURS), kmeans=2)
    lines = [value for colour in COLOURS for value in ImageColor.getrgb(colour)]
    chosen.putpalette(chosen.getpalette() + lines)
    picture.quantize(palette=chosen, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return min(stream.getvalue(), png, key=len)


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers, as text and, in a notebook, as HTML."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"rows: {list(row)} has {len(row)} cells, "
                                 f"the head {len(self.head)}")

    def __str__(self) -> str:
        lines = [[str(cell) for cell in row] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.head)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(c))}</td>' for c in row)}</tr>"
                       for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def style() -> AbstractContextManager[None]:
    """The course's look for figures of your own: `with show.style(): plt.plot(..)`."""
    return matplotlib.rc_context(STYLE)


def finish(canvas: Canvas, alt: str, caption: str = "") -> Figure:
    """A matplotlib figure as a `Figure`; alt says in words what it shows, and is not empty."""
    if not alt.strip():
        raise ValueError("alt: empty, accepted are words that say what the figure shows")
    FigureCanvasAgg(canvas)
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    width, height = canvas.get_size_inches() * DPI
    return Figure(stream.getvalue(), round(width), round(height), alt, caption)


def sheet(x: Tensor, columns: Sequence[str], rows: Sequence[str] = ("",), *, alt: str,
          caption: str = "", scale: int = 2) -> Figure:
    """A contact sheet; with one row, a strip.

    x        pictures (b, 3, h, w) in [-1, 1], row by row; b = len(rows) * len(columns).
    columns  a label over each, rows: one beside each; "" for none, several lines with newlines.
    alt      what to see; how the sheet is laid out is said before it.
    scale    every pixel becomes a square of so many, 1..64.
    """
    if len(check(x)) != len(rows) * len(columns):
        raise ValueError(f"x: {len(x)} pictures, accepted are {len(rows)} rows x "
                         f"{len(columns)} columns")
    pixels = to_uint8(grid(enlarge(x, scale), len(columns), PAD))[0].permute(1, 2, 0)  # h w 3
    height, width = pixels.shape[:2]
    top = max(label.count("\n") + 1 for label in columns) * LINE + GAP if any(columns) else 0
    wide = max(len(line) for label in rows for line in label.split("\n"))
    left = round(6.6 * wide) + 2 * GAP if wide else 0
    full_w, full_h = left + width, top + height
    with style():
        canvas = Canvas((full_w / DPI, full_h / DPI), dpi=DPI)
        canvas.figimage(pixels.cpu().numpy(), left, 0, origin="upper")
        step_w, step_h = (width - PAD) / len(columns), (height - PAD) / len(rows)
        for i, label in enumerate(columns):
            centre = left + PAD / 2 + (i + 0.5) * step_w
            canvas.text(centre / full_w, (height + GAP / 2) / full_h, label, ha="center",
                        va="bottom", size=8)
        for i, label in enumerate(rows):
            centre = height - PAD / 2 - (i + 0.5) * step_h
            canvas.text((left - GAP) / full_w, centre / full_h, label, ha="right", va="center",
                        size=8)
        return finish(canvas, f"{_layout(columns, rows)} {alt}", caption)


def _layout(columns: Sequence[str], rows: Sequence[str]) -> str:
    def words(labels: Sequence[str]) -> str:
        said = ", ".join(" ".join(label.split()) for label in labels if label.strip())
        return f" ({said})" if said else ""

    n = f"{len(rows)} rows{words(rows)}, " if len(rows) > 1 else ""
    return f"Contact sheet: {n}{len(columns)} columns{words(columns)}."


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x: str, y: str,
           alt: str, title: str = "", caption: str = "", log_x: bool = False) -> Figure:
    """Lines with markers: name -> (abscissae, ordinates); x and y label the axes."""
    with style():
        canvas = Canvas((6.0, 3.4), dpi=DPI, layout="constrained")
        axes = canvas.add_subplot(xlabel=x, ylabel=y, title=title)
        for name, (across, up) in series.items():
            axes.plot(across, up, label=name)
        if log_x:
            ticks = sorted({float(v) for across, _ in series.values() for v in across})
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
            axes.minorticks_off()
        if len(series) > 1:
            axes.legend()
        return finish(canvas, alt, caption)
