"""Explorers of what a frozen network is taught: to follow a silhouette, or to know a portrait.

    SilhouetteEditor  draw or choose a silhouette: a portrait that fills it, by strength and window
    LoraMix           portraits between two LoRAs, whose updates are mixed by a slider
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from coursekit.classroom import metrics
from coursekit.classroom.background import Background
from coursekit.classroom.canvas import Sketch
from coursekit.classroom.explorer import (
    Explorer, check, check_finite, chooser, counted, inner, listed, portrait, rmse, slider,
)
from coursekit.classroom.frames import Frame, Picture, still
from coursekit.classroom.injection import both
from coursekit.classroom.show import Figure
from coursekit.diffusion.sample import ddim, last
from coursekit.nets.latent import Latent
from coursekit.nets.lora import Lora, applied, mix

WINDOWS: Mapping[str, tuple[float, float]] = {
    "all hops": (0.0, 1.0), "first half": (0.0, 0.5), "last half": (0.5, 1.0)}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class SilhouetteEditor(Explorer):
    """A canvas for a silhouette, and the portrait that a ControlNet draws by it.

    under, control  edits.controlnet.under and Control; net: a ControlNetModel made for sd.
    sd              a text-to-image model; w as in `sd.eps`.
    silhouettes     (b, n, n) bool, to start from, of the pictures' size; an empty one is added.
    prompt          one sentence; noise: latents (1, c, h, w); path: noisy to clean.
    outline         pictures -> (b, n, n) bool, where the portrait is: judge.silhouette.
    strengths, windows  what the sliders offer; windows by name.

    sketch is the canvas: white is the portrait. `wait` waits until a new one is worked out.
    """

    title = "ControlNet: a silhouette becomes a portrait"

    def __init__(self, under: Callable[..., Latent], control: Callable[..., Any], sd: Latent,
                 net: Any, silhouettes: Tensor, prompt: str, noise: Tensor, path: Sequence[int], *,
                 outline: Callable[[Tensor], Tensor], w: float = 3.0,
                 strengths: Sequence[float] = (0.0, 0.5, 1.0, 1.5),
                 windows: Mapping[str, tuple[float, float]] = WINDOWS) -> None:
        _check(silhouettes, prompt, noise, w, strengths, windows)
        self._under, self._control, self._sd, self._net = under, control, sd, net
        self._prompt, self._noise, self._path, self._w = prompt, noise, list(path), w
        self._outline, self._windows = outline, dict(windows)
        pictures = _drawable(silhouettes)
        self._starts = torch.cat([pictures, torch.full_like(pictures[:1], -1)])
        self.sketch = Sketch(self._starts[:1])
        keys, first = list(product(strengths, self._windows)), self._mask()
        with counted(lambda x, _t: x, len(keys) * (len(path) - 1), "drawing") as tick:
            self._known = {key: self._run(first, key, lambda: tick(noise, 0)) for key in keys}
        self._first, self._last = first, self._known[keys[0]]
        strength = slider("strength", strengths, inner(strengths))
        window = slider("control acts in", list(self._windows), next(iter(self._windows)))
        self._work = Background(self._run, keys, lambda: (strength.value, window.value),
                                lambda _: self.update())
        self._work.start(first, self._known)
        start = chooser("start from", [*(f"silhouette {i + 1}" for i in range(len(silhouettes))),
                                       "an empty canvas"])
        super().__init__({"strength": strength, "window": window, "start": start}, [self.sketch])
        start.observe(lambda c: self.sketch.start(self._starts[c["new"]][None]), "value")
        self.sketch.colour.value = "#ffffff"
        self.sketch.on_change(self._changed)

    def _mask(self) -> Tensor:
        """(1, n, n) bool: what is painted light."""
        return self.sketch.picture.mean(1) > 0

    @torch.no_grad()  # holds for one thread only, so it stands where the work is done
    def _run(self, mask: Tensor, key: tuple[float, str], check: Callable[[], Any]) -> Tensor:
        hint = mask[:, None].float().repeat(1, 3, 1, 1).to(self._noise.device)
        strength, window = key
        held = self._under(self._sd, self._control(self._net, hint, strength=strength,
                                                   window=self._windows[window]), self._path)
        predict = held.eps(self._prompt, w=self._w)

        def eps(x: Tensor, t: int) -> Tensor:
            check()
            return predict(x, t)

        z = last(ddim(eps, self._sd.schedule, self._noise, self._path)).x
        return self._sd.decode(z).clamp(-1, 1).cpu()

    def _seen(self, x: Tensor) -> Tensor:
        """(1, n, n) bool: the outline of a portrait that was drawn."""
        return self._outline(x.to(self._noise.device)).cpu()

    def _changed(self) -> None:
        self._work.start(self._mask())
        self.update()

    def wait(self, seconds: float | None = None) -> None:
        """Until the silhouette is worked out for all sliders; raises what went wrong meanwhile."""
        self._work.wait(seconds)

    @torch.no_grad()
    def draw(self, strength: float, window: str, start: int = 0) -> Frame:
        mask, found = self._mask().cpu(), self._work.results.get((strength, window))
        self._last = self._last if found is None else found
        seen = self._seen(self._last)
        iou = metrics.iou(seen, mask).item()
        row = [Picture("silhouette", _drawable(mask)[0], "the silhouette on the canvas"),
               Picture("computing .." if found is None else "portrait", self._last[0],
                       f"what '{self._prompt}' draws by it, strength {strength:g}, {window}"),
               Picture("outlines", both(mask[0], seen[0]),
                       "blue where portrait and silhouette agree, orange where one is alone")]
        text = f"Strength {strength:g}, control in {window}: IoU {iou:.3f} with the silhouette."
        if self._work.error is not None:
            text = f"It went wrong: {type(self._work.error).__name__}: {self._work.error}"
        elif found is None:
            text = "Drawing; the portrait shown is that of the silhouette before."
        return Frame([row], text)

    @torch.no_grad()
    def _static(self) -> Figure:
        mask, name = self._first.cpu(), next(iter(self._windows))
        some = {s: x for (s, window), x in self._known.items() if window == name}
        ious = {s: metrics.iou(self._seen(x), mask).item() for s, x in some.items()}
        row = [Picture("silhouette", _drawable(mask)[0], "")]
        row += [Picture(f"strength {s:g}\nIoU {ious[s]:.3f}", x[0], "") for s, x in some.items()]
        return still(f"'{self._prompt:.60}' by a silhouette", [row],
                     f"A silhouette, and portraits drawn by it with strength {listed(some)}: IoU "
                     f"{listed(f'{v:.3f}' for v in ious.values())}.")


class LoraMix(Explorer):
    """What a network draws between two LoRAs, and under how much of them.

    sd       a text-to-image model; prompt: one sentence; noise: latents (b, c, h, w).
    a, b     LoRAs for its U-Net; sources: the pictures (2, 3, h, w) that they were fitted to.
    shares   of b in the mix, in [0, 1]; scales: factors of the update.

    The network draws once for every share and scale; the updates are mixed, not their factors.
    """

    title = "Between two LoRAs"

    @torch.no_grad()
    def __init__(self, sd: Latent, a: Lora, b: Lora, sources: Tensor, prompt: str, noise: Tensor,
                 path: Sequence[int], *, w: float = 3.0, shares: Sequence[float] = SHARES,
                 scales: Sequence[float] = (0.5, 1.0)) -> None:
        check(sources, "sources")
        if len(sources) != 2:
            raise ValueError(f"sources has {len(sources)} pictures: accepted are two")
        check_finite("w", w, *scales)
        self._sources, self._x = sources.cpu(), {}
        self._shares, self._scales = list(shares), list(scales)
        keys = list(product(self._shares, self._scales))
        with counted(sd.eps(prompt, w=w), len(keys) * (len(path) - 1), "mixing") as eps:
            for u, scale in keys:
                with applied(sd.unet, mix(a, b, u), scale):
                    z = last(ddim(eps, sd.schedule, noise, path)).x
                self._x[u, scale] = sd.decode(z).clamp(-1, 1).cpu()
        super().__init__({"share": slider("share of the second", self._shares, self._shares[0]),
                          "scale": slider("scale", self._scales, self._scales[-1]),
                          **portrait(noise.new_zeros(len(noise), 3, 1, 1))})

    def draw(self, share: float, scale: float, which: int = 0) -> Frame:
        x = self._x[share, scale][which]
        far = [rmse(x[None], s[None])[0] for s in self._sources]
        row = [Picture("first", self._sources[0], "the portrait of the first LoRA"),
               Picture(f"share {share:g}", x, f"drawn with {share:g} of the second, x {scale:g}"),
               Picture("second", self._sources[1], "the portrait of the second LoRA")]
        return Frame([row], f"Share {share:g}, scale {scale:g}: RMSE {far[0]:.3f} from the first, "
                            f"{far[1]:.3f} from the second.")

    def _static(self) -> Figure:
        scale = self._scales[-1]
        row = [Picture("first", self._sources[0], "")]
        row += [Picture(f"u = {u:g}", self._x[u, scale][0], "") for u in self._shares]
        row.append(Picture("second", self._sources[1], ""))
        far = [f"{rmse(self._x[u, scale][:1], self._sources[:1])[0]:.3f}" for u in self._shares]
        return still("From one LoRA to another, their updates mixed", [row],
                     "Two portraits, and between them what a mix of their LoRAs draws, share "
                     f"{listed(self._shares)} of the second: RMSE {listed(far)} from the first.")


def _drawable(masks: Tensor) -> Tensor:
    """Masks (b, n, n) as pictures (b, 3, n, n), white on black."""
    return (2 * masks.float() - 1)[:, None].repeat(1, 3, 1, 1)


def _check(silhouettes: Tensor, prompt: str, noise: Tensor, w: float, strengths: Sequence[float],
           windows: Mapping[str, tuple[float, float]]) -> None:
    if silhouettes.dtype != torch.bool or silhouettes.ndim != 3 or not len(silhouettes):
        raise ValueError(f"silhouettes is {silhouettes.dtype} {tuple(silhouettes.shape)}: accepted "
                         "is (b, n, n) bool")
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f"prompt={prompt!r:.60}: accepted is one sentence")
    if len(noise) != 1:
        raise ValueError(f"noise is of {len(noise)} pictures: accepted is one")
    check_finite("w", w, *strengths)
    if len(set(strengths)) < max(2, len(strengths)) or not windows:
        raise ValueError(f"strengths={strengths!r}: accepted are 2 or more numbers, all different")
