"""Explorers: one idea each, under sliders; they take a noise predictor and its schedule.

Those of text to image take a `nets.latent.Latent`, which is both, a prompt and latents of noise.

    NoiseLevel      what noise hides, and what the predictor makes of it
    ElboTerms       where the bound is lost: every term, and what L_simple makes of it
    SamplingPath    DDPM, DDIM and what lies between, state by state
    StrokeEditor    SDEdit: paint, and the strokes become a portrait; t0 says how far
    RoundTrip       inversion up and sampling down again, and the error between
    AttentionMaps   where a text-to-image network looks for each word, step by step
    GuidanceWeight  one noise and one prompt under several w
    Inversions      a picture brought back, and edited, under guidance in several ways
    PromptEditor    Prompt-to-Prompt: another prompt for a picture, drawn as you type
    PromptWindows   the same edit under several windows and weights of a word
    DecoderFeatures   three principal components of the decoder's features, by layer and time
    InjectionWindows  Plug-and-Play under its two thresholds, outline beside outline
    SilhouetteEditor  draw a silhouette, and ControlNet's portrait by it
    LoraMix           portraits between two LoRAs, whose updates are mixed

    explorer = NoiseLevel(model.eps(), model.schedule, render(sample(2, g)))
    explorer            # in a notebook: the controls and the view
    explorer.static()   # the same content as a figure

Pictures are (b, 3, h, w) in [-1, 1]; with b > 1 one can choose among them. `seed` fixes all noise,
so that what changes between two views comes from the control that was moved. The network works
when an explorer is made; only a new painting, silhouette or prompt is computed later, in the
background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from coursekit.classroom.adapters import LoraMix, SilhouetteEditor
from coursekit.classroom.attention import AttentionMaps
from coursekit.classroom.explorer import (
    Explorer,
    buttons,
    check,
    counted,
    listed,
    portrait,
    rmse,
    seeded,
    slider,
    spread,
)
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.classroom.guidance import GuidanceWeight
from coursekit.classroom.injection import DecoderFeatures, InjectionWindows
from coursekit.classroom.inversions import Inversions
from coursekit.classroom.painting import StrokeEditor
from coursekit.classroom.prompts import PromptEditor, PromptWindows
from coursekit.classroom.show import Figure
from coursekit.classroom.walks import RoundTrip, SamplingPath
from coursekit.diffusion import elbo
from coursekit.diffusion.predict import Eps, to_eps
from coursekit.diffusion.sample import randn_like
from coursekit.diffusion.schedule import Schedule

__all__ = ["AttentionMaps", "DecoderFeatures", "ElboTerms", "GuidanceWeight", "InjectionWindows",
           "Inversions", "LoraMix", "NoiseLevel", "PromptEditor", "PromptWindows", "RoundTrip",
           "SamplingPath", "SilhouetteEditor", "StrokeEditor"]


class NoiseLevel(Explorer):
    """x_t for a slider over t, and the x_0 that the predictor sees in it.

    levels  how many times 0..T the slider has, >= 2; the predictor is called once for each but 0.
    """

    title = "Noise level and x_0-prediction"

    @torch.no_grad()
    def __init__(self, eps: Eps, schedule: Schedule, x0: Tensor, *, levels: int = 41,
                 seed: int = 0) -> None:
        check(x0, "x0", levels=(levels, 2, schedule.T + 1))
        self._schedule, self._x0 = schedule, x0
        self._times = schedule.trailing(levels - 1)[::-1]
        z = randn_like(x0, seeded(seed))
        self._noisy = {t: schedule.noise(x0, z, t) for t in self._times}
        self._found = {0: x0}
        with counted(eps, levels - 1, "predicting x_0") as call:
            for t in self._times[1:]:
                x = self._noisy[t]
                self._found[t] = schedule.denoise(x, call(x, t), t)
        self._rmse = {t: rmse(self._found[t], x0) for t in self._times}
        self._plots = [self._plot(i) for i in range(len(x0))]
        middle = self._times[levels // 2]
        super().__init__({"t": slider("time t", self._times, middle), **portrait(x0)})

    def _plot(self, i: int) -> Plot:
        signal = [math.sqrt(self._schedule.level(t)) for t in self._times]
        errors = [self._rmse[t][i] for t in self._times]
        return Plot(
            "The signal left in x_t, and the error of the x_0-prediction", "time t", "share; RMSE",
            {"signal left, sqrt(abar)": (self._times, signal),
             "RMSE of x_0-prediction": (self._times, errors)},
            f"Two curves over t. Signal left falls from 1 to {signal[-1]:.2g}; the RMSE of the "
            f"x_0-prediction goes from 0 to {errors[-1]:.2g}.")

    def draw(self, t: int, which: int = 0) -> Frame:
        x0, found, gap = self._x0[which], self._found[t][which], self._rmse[t][which]
        level = self._schedule.level(t)
        row = [Picture("x_0", x0, "the clean portrait"),
               Picture(f"x_t, t = {t}", self._noisy[t][which], f"the portrait, noised to t = {t}"),
               Picture("x_0-prediction", found, f"the predictor's guess, RMSE {gap:.3f}"),
               Picture("error x 2", 2 * (found - x0), "what the guess gets wrong, grey is nothing")]
        words = (f"t = {t}: abar = {level:.4f}, {level:.0%} of the variance is signal. "
                 f"RMSE of the x_0-prediction {gap:.3f}.")
        return Frame([row], words, self._plots[which], (t, gap))

    def _static(self) -> Figure:
        shown = spread(self._times[1:], 4)
        errors = [f"{self._rmse[t][0]:.2f}" for t in shown]
        noisy = [Picture(f"x_t, t = {t}", self._noisy[t][0], "") for t in shown]
        found = [Picture(f"RMSE {e}", self._found[t][0], "")
                 for t, e in zip(shown, errors, strict=True)]
        return still(
            "What the predictor sees in a noisy portrait", [noisy, found],
            f"Above a portrait noised to t = {listed(shown)}; below the x_0-prediction from each, "
            f"with an RMSE of {listed(errors)}. {self._plots[0].alt}", self._plots[0])


class ElboTerms(Explorer):
    """Every term of the bound on a path, with one draw of x_t for each, beside that x_t.

    path  ends at 0, the predictor is called once a hop; None is trailing(50). A term is shown in
          bits/dim, or as L_simple counts it: the mean squared error of eps.
    """

    title = "Terms of the bound"

    @torch.no_grad()
    def __init__(self, eps: Eps, schedule: Schedule, x0: Tensor, *,
                 path: Sequence[int] | None = None, seed: int = 0) -> None:
        check(x0, "x0")
        path = schedule.trailing(min(50, schedule.T)) if path is None else path
        self._schedule, self._x0, self._seen = schedule, x0, {}
        with counted(eps, len(path) - 1, "terms of the bound") as call:
            def spy(x: Tensor, t: int) -> Tensor:
                self._seen[t] = x, call(x, t)
                return self._seen[t][1]

            prior, *terms = elbo.terms(spy, schedule, x0, path, seeded(seed))
        dims = x0[0].numel()
        bound = {term.t: elbo.bits_per_dim(term.nats, dims).tolist() for term in terms}
        simple = {t: [d**2 for d in rmse(e, to_eps(schedule, "x0", x0, x, t))]
                  for t, (x, e) in self._seen.items()}
        self._values = {"bound": bound, "L_simple": simple}
        self._prior = elbo.bits_per_dim(prior.nats, dims).tolist()
        self._lower, self._times = dict(pairwise(path)), sorted(self._seen)
        self._plots = {(m, i): self._plot(m, i) for m in self._values for i in range(len(x0))}
        super().__init__({"t": slider("hop from t", self._times, self._times[len(path) // 2]),
                          "measure": buttons("measured as", self._values), **portrait(x0)})

    def total(self, which: int = 0) -> float:
        """The whole negative bound, prior and decoder included, in bits/dim."""
        return self._prior[which] + sum(bits[which] for bits in self._values["bound"].values())

    def _plot(self, measure: str, i: int) -> Plot:
        values = [self._values[measure][t][i] for t in self._times]
        unit = "bits/dim" if measure == "bound" else "squared error of eps"
        title = ("What each hop costs the bound" if measure == "bound"
                 else "L_simple: the same errors, without the bound's weights")
        top = max(range(len(values)), key=values.__getitem__)
        return Plot(title, "time t", unit, {measure: (self._times, values)},
                    f"A curve over t: {values[0]:.3g} {unit} at t = {self._times[0]}, at most "
                    f"{values[top]:.3g} at t = {self._times[top]}, and {values[-1]:.3g} at "
                    f"t = {self._times[-1]}.", log="y")

    def draw(self, t: int, measure: str, which: int = 0) -> Frame:
        x, e = self._seen[t]
        guess = self._schedule.denoise(x, e, t)[which]
        bits, error = (values[t][which] for values in self._values.values())
        row = [Picture("x_0", self._x0[which], "the clean portrait"),
               Picture(f"x_t, t = {t}", x[which], f"the portrait, noised to t = {t}"),
               Picture("x_0-prediction", guess, "what the predictor believes x_0 to be")]
        words = (f"Hop {t} to {self._lower[t]}: {self._kind(t)} {bits:.4g} bits/dim, "
                 f"{100 * bits / self.total(which):.2g} % of the sum {self.total(which):.3f} "
                 f"(prior {self._prior[which]:.2g}). Squared error of eps {error:.4f}{self._weight(t)}.")
        at = (t, bits if measure == "bound" else error)
        return Frame([row], words, self._plots[measure, which], at)

    def _kind(self, t: int) -> str:
        return "KL" if self._lower[t] else f"-log p(x_0 | x_{t})"

    def _weight(self, t: int) -> str:
        s = self._lower[t]
        if not s:
            return ""
        weight = elbo.gamma(self._schedule, t, s, math.sqrt(self._schedule.beta_tilde(t, s)))
        return f", weight {weight:.3g} in the bound and 1 in L_simple"

    def _static(self) -> Figure:
        shown = spread(self._times, 5)
        row = [Picture(f"x_t, t = {t}\n{self._values['bound'][t][0]:.2g}", self._seen[t][0][0], "")
               for t in shown]
        plot = self._plots["bound", 0]
        return still("Terms of the bound, in bits/dim, and the x_t they are measured at", [row],
                     f"A portrait noised to t = {listed(shown)}. {plot.alt} All terms sum to "
                     f"{self.total():.3f} bits/dim.", plot)
