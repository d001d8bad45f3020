"""The explorer of guidance: one noise and one prompt, pulled towards the text by several w."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coursekit.classroom.explorer import (
    Explorer,
    check,
    check_finite,
    counted,
    listed,
    portrait,
    rmse,
    slider,
)
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.classroom.show import Figure
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import ddim, last
from coursekit.nets.latent import Latent


class GuidanceWeight(Explorer):
    """What eps(z, "") + w (eps(z, prompt) - eps(z, "")) draws from the same noise, over w.

    sd       a text-to-image model; prompt: one sentence, negative as in `sd.eps`.
    noise    latents (b, c, h, w), e.g. sd.noise(2, generator).
    weights  two or more values of w; the first is what the others are compared with.
    steps    the values of S.  sum(steps) * len(weights) calls of the predictor.
    """

    title = "The guidance weight"

    @torch.no_grad()
    def __init__(self, sd: Latent, prompt: str, noise: Tensor, *,
                 weights: Sequence[float] = (1.0, 2.0, 3.0, 5.0, 7.5, 12.0),
                 steps: Sequence[int] = (5, 10, 25), negative: str = "") -> None:
        _check(sd, prompt, noise, weights, steps)
        self._prompt, self._first, self._weights = prompt, weights[0], sorted(weights)
        self._steps, self._x, self._sd = steps, {}, {}
        self._sample(sd, {w: sd.eps(prompt, negative, w) for w in weights}, noise)
        self._moved = {(w, S): rmse(x, self._x[self._first, S]) for (w, S), x in self._x.items()}
        self._beyond = {key: (x.abs() > 1).flatten(1).float().mean(1).tolist()
                        for key, x in self._x.items()}
        self._plots = {(S, i): self._plot(S, i) for S in steps for i in range(len(noise))}
        middle = self._weights[(len(weights) - 1) // 2]
        super().__init__({"w": slider("weight w", self._weights, middle),
                          "S": slider("hops S", steps, steps[-1]), **portrait(noise)})

    def _sample(self, sd: Latent, predictors: Mapping[float, Eps], noise: Tensor) -> None:
        """Pictures, and the deviation of their latents, for every w and S."""
        def eps(x: Tensor, t: int) -> Tensor:
            return predictors[w](x, t)  # that of the loop below: one bar for all of them

        hops = sum(len(sd.path(S)) - 1 for S in self._steps)
        with counted(eps, hops * len(predictors), "sampling") as call:
            for w in predictors:
                for S in self._steps:
                    z = last(ddim(call, sd.schedule, noise, sd.path(S))).x
                    self._x[w, S], self._sd[w, S] = sd.decode(z).cpu(), z.flatten(1).std(1).tolist()

    def _plot(self, S: int, i: int) -> Plot:
        weights = self._weights
        curves = {f"RMSE from w = {self._first:g}": [self._moved[w, S][i] for w in weights],
                  "deviation of the latents": [self._sd[w, S][i] for w in weights]}
        ends = "; ".join(f"{name} {ys[0]:.3g} and {ys[-1]:.3g}" for name, ys in curves.items())
        return Plot(f"What w does, S = {S}", "guidance weight w", "RMSE; deviation",
                    {name: (weights, ys) for name, ys in curves.items()},
                    f"Two curves over w, at w = {weights[0]:g} and {weights[-1]:g}: {ends}.")

    def draw(self, w: float, S: int, which: int = 0) -> Frame:
        first, x0, x = self._first, self._x[self._first, S][which], self._x[w, S][which]
        gap, beyond, sd = (found[w, S][which] for found in (self._moved, self._beyond, self._sd))
        row = [Picture(f"w = {first:g}", x0,
                       f"the picture to compare with: w = {first:g}, S = {S}"),
               Picture(f"w = {w:g}", x, f"the picture under the weight chosen, w = {w:g}, S = {S}"),
               Picture("difference", x - x0,
                       f"what the weight changed, RMSE {gap:.3f}; grey is nothing")]
        words = (f"w = {w:g}, S = {S}{_kind(w)}: RMSE {gap:.3f} from w = {first:g}, "
                 f"{beyond:.2%} of the values beyond black and white, deviation of the latents "
                 f"{sd:.3f}.")
        return Frame([row], words, self._plots[S, which], (w, gap))

    def _static(self) -> Figure:
        S, weights = self._steps[-1], self._weights
        row = [Picture(f"w = {w:g}", self._x[w, S][0], "") for w in weights]
        plot = self._plots[S, 0]
        return still(
            f"One noise under several guidance weights, S = {S}", [row],
            f"Pictures for '{self._prompt}' from the same noise in {S} hops, under w = "
            f"{listed(f'{w:g}' for w in weights)}. {plot.alt}", plot)


def _check(sd: Latent, prompt: str, noise: Tensor, weights: Sequence[float],
           steps: Sequence[int]) -> None:
    check(noise, "noise", sd.unet.config.in_channels)
    if not isinstance(prompt, str):
        raise TypeError(f"prompt is {type(prompt).__name__}: accepted is one sentence")
    for name, values, least in (("weights", weights, 2), ("steps", steps, 1)):
        if not isinstance(values, Sequence) or len(set(values)) < max(least, len(values)):
            raise ValueError(f"{name}={values!r}: accepted are {least} or more numbers, all "
                             "different")
    check_finite("weights", *weights)
    for S in steps:
        check(noise, "noise", sd.unet.config.in_channels, steps=(S, 2, sd.schedule.T))


def _kind(w: float) -> str:
    return {0.0: " (the negative alone)", 1.0: " (the prompt alone)"}.get(w, "")
