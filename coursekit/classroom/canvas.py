"""A canvas to paint on with the mouse or a finger, and the picture that is on it.

The browser's canvas (ipycanvas) only mirrors: the painting itself is kept here, so that it can be
read at once, and made or tested without a browser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import ipycanvas
import ipywidgets
import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from coursekit import images

SIDE = 256  # pixels of the browser's canvas, about
EDGE = "1px solid #888888"
COLOURS = {  # what portraits are made of
    "light skin": "#f0c8a8", "brown skin": "#9a6644", "dark hair": "#2b1d16",
    "blond hair": "#d9b46a", "red": "#c0392b", "green": "#3b8f5a", "blue": "#3f6fb5",
    "yellow": "#f2c230", "white": "#ffffff", "grey": "#8a8a8a", "black": "#000000",
}  # fmt: skip


@dataclass(frozen=True)
class Stroke:
    """points (x, y) in pixels of the picture, width likewise; colour as "#rrggbb"."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float


class Sketch(ipywidgets.HBox):
    """A canvas with brushes; `picture` is what is painted, `on_change` says when a stroke ended.

    base  (1, 3, n, n) in [-1, 1], what there is before the first stroke.
    """

    def __init__(self, base: Tensor) -> None:
        images.check(base, "base")
        if base.shape[0] != 1 or base.shape[2] != base.shape[3]:
            raise ValueError(f"base has shape {tuple(base.shape)}: accepted is (1, 3, n, n)")
        self._scale = max(1, round(SIDE / base.shape[3]))
        self._base, self._strokes, self._open = base, [], None
        self._calls: list[Callable[[], None]] = []
        side = self._scale * base.shape[3]
        self.canvas = ipycanvas.Canvas(width=side, height=side)
        self.canvas.layout = ipywidgets.Layout(border=EDGE, width=f"{side}px")
        self.colour = ipywidgets.ColorPicker(value=COLOURS["dark hair"], description="colour")
        self.width = ipywidgets.IntSlider(value=6, min=1, max=24, description="brush")
        hint = ipywidgets.HTML("Paint with the mouse or a finger; let go, and it is computed.")
        brushes = [hint, self._swatches(), self.colour, self.width, self._commands()]
        super().__init__([self.canvas, ipywidgets.VBox(brushes)])
        self.canvas.on_mouse_down(self._press)
        self.canvas.on_mouse_move(self._move)
        self.canvas.on_mouse_up(self._release)
        self.canvas.on_mouse_out(self._release)
        self.canvas.on_touch_start(lambda touches: self._press(*touches[0]))
        self.canvas.on_touch_move(lambda touches: self._move(*touches[0]))
        self.canvas.on_touch_end(lambda touches: self._release())
        self.canvas.on_client_ready(self._mirror)  # a page opened anew starts from nothing
        self._reset()

    # ---- what is painted ------------------------------------------------------------------

    @property
    def picture(self) -> Tensor:
        """The painting, (1, 3, n, n) float32 in [-1, 1]; the base to 8 bits where untouched."""
        small = numpy.array(self._painting.reduce(self._scale))
        return images.from_uint8(torch.from_numpy(small).permute(2, 0, 1)[None])  # 1 3 n n

    def on_change(self, call: Callable[[], None]) -> None:
        """`call`() after each stroke, undo, clear or start."""
        self._calls.append(call)

    def start(self, base: Tensor) -> None:
        """Begin anew from another picture of the same size."""
        if base.shape != self._base.shape:
            raise ValueError(f"base has shape {tuple(base.shape)}: accepted is "
                             f"{tuple(self._base.shape)}")
        self._base, self._strokes = base, []
        self._reset()
        self._tell()

    def stroke(
        self, points: Sequence[tuple[float, float]], colour: str | None = None,
        width: float | None = None,
    ) -> None:
        """One stroke, in pixels of the picture, as if drawn by hand; colour as "#rrggbb"."""
        points = tuple((float(x), float(y)) for x, y in points)
        if not points:
            raise ValueError("points is empty: accepted is at least one (x, y)")
        self._strokes.append(Stroke(points, colour or self.colour.value, width or self.width.value))
        self._paint(self._strokes[-1])
        self._mirror()
        self._tell()

    def undo(self) -> None:
        """Take the last stroke back; nothing happens where there is none."""
        if self._strokes:
            self._strokes.pop()
            self._reset()
            self._tell()

    def clear(self) -> None:
        """Take all strokes back."""
        if self._strokes:
            self._strokes = []
            self._reset()
            self._tell()

    # ---- the mouse ------------------------------------------------------------------------

    def _press(self, x: float, y: float) -> None:
        self._open = [(x / self._scale, y / self._scale)]
        self._extend(self._open)

    def _move(self, x: float, y: float) -> None:
        if self._open is not None:
            self._open.append((x / self._scale, y / self._scale))
            self._extend(self._open[-2:])

    def _release(self, x: float = 0, y: float = 0) -> None:
        if self._open is not None:
            points, self._open = tuple(self._open), None
            self._strokes.append(Stroke(points, self.colour.value, self.width.value))
            self._tell()

    def _extend(self, points: Sequence[tuple[float, float]]) -> None:
        """The newest piece of an open stroke, here and in the browser."""
        piece = Stroke(tuple(points), self.colour.value, self.width.value)
        self._paint(piece)
        (x, y), (u, v) = (tuple(self._scale * c for c in p) for p in (points[0], points[-1]))
        with ipycanvas.hold_canvas(self.canvas):
            self.canvas.stroke_style = self.canvas.fill_style = piece.colour
            self.canvas.line_width = piece.width * self._scale
            self.canvas.stroke_line(x, y, u, v)
            self.canvas.fill_circle(u, v, piece.width * self._scale / 2)

    # ---- pixels ---------------------------------------------------------------------------

    def _reset(self) -> None:
        pixels = images.to_uint8(images.enlarge(self._base.clamp(-1, 1), self._scale))[0]
        self._painting = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
        for stroke in self._strokes:
            self._paint(stroke)
        self._mirror()

    def _paint(self, stroke: Stroke) -> None:
        pen, radius = ImageDraw.Draw(self._painting), stroke.width * self._scale / 2
        points = [(x * self._scale, y * self._scale) for x, y in stroke.points]
        for line in pairwise(points):
            pen.line(line, fill=stroke.colour, width=round(2 * radius))
        for x, y in points:  # round ends and joints, so that the pieces of a stroke make the whole
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=stroke.colour)

    def _mirror(self) -> None:
        self.canvas.put_image_data(numpy.array(self._painting), 0, 0)

    def _tell(self) -> None:
        for call in self._calls:
            call()

    # ---- brushes --------------------------------------------------------------------------

    def _swatches(self) -> ipywidgets.Widget:
        def swatch(name: str, colour: str) -> ipywidgets.Button:
            look = {"width": "28px", "height": "28px", "border": EDGE}
            button = ipywidgets.Button(tooltip=name, layout=look)
            button.style.button_color = colour
            button.on_click(lambda _: setattr(self.colour, "value", colour))
            return button

        row = {"flex_flow": "row wrap", "width": "320px"}
        return ipywidgets.Box([swatch(*item) for item in COLOURS.items()], layout=row)

    def _commands(self) -> ipywidgets.Widget:
        undo, clear = (ipywidgets.Button(description=name) for name in ("undo", "clear"))
        undo.on_click(lambda _: self.undo())
        clear.on_click(lambda _: self.clear())
        return ipywidgets.HBox([undo, clear])
