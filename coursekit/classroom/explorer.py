"""What all explorers share: controls above, a view below that follows them, a figure to keep.

An explorer computes what costs time when it is made, under a progress bar if it is long, and then
only draws: a control answers within 200 ms. Displayed, it brings its static figure along, so that
a page without a kernel (GitHub, print) shows that instead.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets
import torch
from torch import Tensor

from coursekit import images
from coursekit.classroom.frames import Frame
from coursekit.classroom.show import Figure
from coursekit.diffusion.predict import Eps

PATIENCE = 2.0  # seconds without a sign of life that a reader should have to bear


class Explorer(ipywidgets.VBox):
    """Controls and the view that they steer. A kind of explorer says how to draw and what to keep.

    title     one line above all.
    controls  name -> widget with a `value`; shown in this order, `draw` gets the values by name.
    view      the HTML widget below them: pictures, numbers, plot.
    """

    title = "Explorer"

    def __init__(self, controls: Mapping[str, ipywidgets.ValueWidget],
                 above: Sequence[ipywidgets.Widget] = ()) -> None:
        """above: widgets shown between the controls and the view, e.g. a canvas."""
        self.controls, self.view = dict(controls), ipywidgets.HTML()
        self._lock, self._figure = threading.RLock(), None
        heading = ipywidgets.HTML(f"<b>{escape(self.title)}</b>")
        super().__init__([heading, *self.controls.values(), *above, self.view])
        for control in self.controls.values():
            control.observe(self.update, "value")
        self.update()

    def draw(self, **values: Any) -> Frame:
        """The view for these values of the controls; quick, as everything is computed."""
        raise NotImplementedError

    def static(self) -> Figure:
        """A figure of the same content that needs no kernel, of the first portrait."""
        if self._figure is None:  # a second's work, and a notebook asks for every display
            self._figure = self._static()
        return self._figure

    def _static(self) -> Figure:
        raise NotImplementedError

    @property
    def frame(self) -> Frame:
        """What the controls ask for now."""
        return self.draw(**{name: control.value for name, control in self.controls.items()})

    def update(self, change: Any = None) -> None:
        """Draws the view anew; the controls call it."""
        with self._lock:  # also threads call it: the last to enter sees the newest values
            self.view.value = self.frame.html()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.controls)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/html": self.static()._repr_html_(), "text/plain": repr(self)}


# ---- controls -------------------------------------------------------------------------------


def wide() -> dict[str, Any]:
    """Looks for a control with a label in words."""
    return {"style": {"description_width": "11em"}, "layout": {"width": "36em"}}


def slider(label: str, options: Sequence[Any], value: Any) -> ipywidgets.SelectionSlider:
    """A slider over given values, or over pairs of (what is shown, value)."""
    return ipywidgets.SelectionSlider(options=options, value=value, description=label, **wide())


def buttons(label: str, options: Iterable[Any]) -> ipywidgets.ToggleButtons:
    """One of a few values, all in sight."""
    style, layout = {"description_width": "11em", "button_width": "auto"}, {"display": "flex"}
    return ipywidgets.ToggleButtons(options=list(options), description=label, style=style,
                                    layout=layout)


def chooser(label: str, names: Iterable[str]) -> ipywidgets.Dropdown:
    """One of several things by name; its value is the index."""
    options = [(name, i) for i, name in enumerate(names)]
    return ipywidgets.Dropdown(options=options, value=0, description=label, **wide())


def portrait(x: Tensor) -> dict[str, ipywidgets.ValueWidget]:
    """The control `which` of the b pictures x; none where there is only one."""
    names = [f"portrait {i + 1}" for i in range(len(x))]
    return {"which": chooser("portrait", names)} if len(x) > 1 else {}


# ---- what they all check and say ------------------------------------------------------------


def check(x: Tensor, name: str, channels: int = 3, **numbers: tuple[int, int, int]) -> None:
    """x is pictures (b, 3, h, w), or latents; numbers: name = (value, lowest, highest), whole."""
    images.check(x, name, channels)
    for argument, (value, low, high) in numbers.items():
        if not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{argument}={value!r}: accepted is a whole number {low}..{high}")


def check_finite(name: str, *values: float) -> None:
    """Numbers of any kind that are neither NaN nor infinite."""
    for value in values:
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r}: accepted are finite numbers")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rmse(a: Tensor, b: Tensor) -> list[float]:
    """Root of the mean squared difference, for each picture."""
    return (a - b).flatten(1).square().mean(1).sqrt().tolist()


def inner(values: Sequence[float]) -> float:
    """Where a slider begins: near the middle, with two steps upwards left where there are as many.
    """
    return values[max(0, min((len(values) - 1) // 2, len(values) - 3))]


def spread(items: Sequence[int], n: int) -> list[int]:
    """n of the items, evenly, the first and the last among them; all where there are fewer."""
    n = min(n, len(items))
    return [items[round(i * (len(items) - 1) / max(1, n - 1))] for i in range(n)]


def listed(items: Iterable[Any]) -> str:
    """1, 2 and 3."""
    *most, end = map(str, items)
    return f"{', '.join(most)} and {end}" if most else end


# ---- waiting --------------------------------------------------------------------------------


@contextmanager
def counted(eps: Eps, calls: int, label: str) -> Iterator[Eps]:
    """`eps`, with a bar over `calls` calls of it where they will take more than PATIENCE seconds.

    Only a notebook gets the bar, and it is gone at the end, from the saved outputs too.
    """
    begun, done, bar, handle = time.perf_counter(), 0, None, None

    def counting(x: Tensor, t: int) -> Tensor:
        nonlocal done, bar, handle
        out = eps(x, t)
        done += 1
        expected = (time.perf_counter() - begun) / done * calls
        if bar is None and done >= 2 and expected > PATIENCE and _in_notebook():
            from IPython.display import display

            bar = ipywidgets.IntProgress(max=calls, description=label, **wide())
            handle = display(bar, display_id=True)
        if bar is not None:
            bar.value = done
        return out

    try:
        yield counting
    finally:
        if bar is not None:
            handle.update({}, raw=True)
            bar.close()


def _in_notebook() -> bool:
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
