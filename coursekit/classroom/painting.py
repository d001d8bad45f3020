"""The explorer of SDEdit: paint, and the strokes become a portrait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coursekit.classroom.background import Background
from coursekit.classroom.canvas import Sketch
from coursekit.classroom.explorer import (
    Explorer,
    check,
    chooser,
    counted,
    listed,
    rmse,
    seeded,
    slider,
    spread,
)
from coursekit.classroom.frames import Frame, Picture, still
from coursekit.classroom.show import Figure
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import randn_like
from coursekit.diffusion.schedule import Schedule

BLANK = 0.85  # the brightness of an empty canvas, in [-1, 1]


class StrokeEditor(Explorer):
    """A canvas: its strokes are drowned in noise up to t0 and come back as a picture.

    edit    edit(eps, schedule, guide, t0, path, generator=..) -> picture; `edits.sdedit.edit`.
    guides  (b, 3, n, n), paintings to start from, e.g. portraits.strokes(..); a blank one is added.
    steps   hops of the whole path.  levels  how many t0 there are, 0 and T among them, >= 2.
    options are passed on to `edit`, e.g. eta=0.0.

    sketch is the canvas, `wait` waits until a new painting is worked out.
    """

    title = "SDEdit: strokes become a portrait"

    def __init__(self, edit: Callable[..., Tensor], eps: Eps, schedule: Schedule, guides: Tensor,
                 *, steps: int = 20, levels: int = 9, seed: int = 0, **options: Any) -> None:
        check(guides, "guides", levels=(levels, 2, steps + 1))
        self._edit, self._eps, self._schedule, self._seed = edit, eps, schedule, seed
        self._path, self._options = schedule.trailing(steps), options
        self._times = spread(self._path[::-1], levels)
        self._starts = torch.cat([guides, torch.full_like(guides[:1], BLANK)])
        self.sketch = Sketch(guides[:1])
        self._guide = self.sketch.picture.to(guides.device)
        hops = sum(t < t0 for t0 in self._times for t in self._path)
        with counted(eps, hops, "painting") as call:
            self._known = {t0: self._run(self._guide, t0, call) for t0 in self._times}
        self._last = self._guide
        t0 = slider("t0", self._times, self._times[levels // 2])
        self._work = Background(self._compute, self._times, lambda: t0.value, self._arrived)
        self._work.start(self._guide, self._known)
        names = [*(f"painting {i + 1}" for i in range(len(guides))), "a blank canvas"]
        start = chooser("start from", names)
        super().__init__({"start": start, "t0": t0}, above=[self.sketch])
        start.observe(lambda c: self.sketch.start(self._starts[c["new"]][None]), "value")
        self.sketch.on_change(self._changed)

    @torch.no_grad()  # holds for one thread only, so it stands where the work is done
    def _run(self, guide: Tensor, t0: int, eps: Eps) -> Tensor:
        return self._edit(eps, self._schedule, guide, t0, self._path,
                          generator=seeded(self._seed), **self._options)

    def _compute(self, guide: Tensor, t0: int, check: Callable[[], None]) -> Tensor:
        def eps(x: Tensor, t: int) -> Tensor:
            check()
            return self._eps(x, t)

        return self._run(guide, t0, eps)

    def _changed(self) -> None:
        self._work.start(self.sketch.picture.to(self._guide.device))
        self.update()

    def _arrived(self, t0: int | None) -> None:
        if t0 in (None, self.controls["t0"].value):
            self.update()

    def wait(self, seconds: float | None = None) -> None:
        """Until the painting is worked out for every t0; raises what went wrong meanwhile."""
        self._work.wait(seconds)

    def draw(self, t0: int, start: int = 0) -> Frame:
        guide, found = self.sketch.picture, self._work.results.get(t0)
        self._last = self._last if found is None else found
        noisy = self._schedule.noise(guide, randn_like(guide, seeded(self._seed)), t0)
        row = [Picture("painting", guide[0], "the painting on the canvas"),
               Picture(f"noised, t0 = {t0}", noisy[0], f"the painting, noised to t0 = {t0}"),
               Picture("computing .." if found is None else "result", self._last[0],
                       f"what the predictor makes of it from t0 = {t0}")]
        words = (f"t0 = {t0}: {self._schedule.level(t0):.0%} of the variance is still the "
                 "painting's. A small t0 keeps to the painting, a large one makes a portrait.")
        if self._work.error is not None:
            words = f"It went wrong: {type(self._work.error).__name__}: {self._work.error}"
        return Frame([row], words)

    def _static(self) -> Figure:
        row = [Picture("painting", self._guide[0], "")]
        row += [Picture(f"t0 = {t0}", self._known[t0][0], "") for t0 in self._times[1:]]
        left = [f"{rmse(self._known[t0], self._guide)[0]:.2f}" for t0 in self._times[1:]]
        half = (len(row) + 1) // 2
        return still(
            "SDEdit: a small t0 keeps to the painting, a large one makes a portrait",
            [row[:half], row[half:]],
            f"A crude painting, and the results for t0 = {listed(self._times[1:])}. They differ "
            f"from the painting by an RMSE of {listed(left)}.")
