"""Explorers of injection: what Plug-and-Play's two thresholds hold, and what its features are.

    InjectionWindows  one edit under all pairs of thresholds, with its outline beside the source's
    DecoderFeatures   three principal components of the decoder's features, by layer and time

Tumanyan et al., "Plug-and-Play Diffusion Features for Text-Driven Image-to-Image Translation",
CVPR 2023, draw such components of a decoder's layers, and set the two thresholds by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import product

import torch
from torch import Tensor, nn

from coursekit.classroom import metrics
from coursekit.classroom.explorer import (
    Explorer,
    buttons,
    check,
    check_finite,
    counted,
    listed,
    portrait,
    rmse,
    slider,
    spread,
)
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.classroom.show import Figure
from coursekit.diffusion.sample import invert
from coursekit.nets.control import tapped
from coursekit.nets.latent import Latent, Prompt

Modules = Mapping[str, nn.Module]
SHARES = (0.0, 0.4, 0.8, 1.0)
INSIDE, ALONE = (-0.6, 0.1, 0.45), (0.67, -0.27, -1.0)  # blue and vermilion, in [-1, 1]
LEAST = 3  # pictures in a row of components, and times of a slider
ROWS = 4  # layers on paper


# ---- thresholds -----------------------------------------------------------------------------


class InjectionWindows(Explorer):
    """Plug-and-Play's edit of pictures, for every pair of the two thresholds.

    edit          edits.pnp.edit, or another edit that takes tau_f and tau_A.
    sd            a text-to-image model; w and negative as in `sd.eps`.
    x             sources (b, 3, h, w) in [-1, 1]; prompt: one sentence that tells of them.
    target        what they shall show, one sentence.
    path          noisy to clean; the sources are inverted along it once, at w = 1.
    outline       pictures -> (b, h, w) bool, where the portrait is: judge.silhouette.
    success       pictures -> (b,) bool, which of them show what was asked for.
    tau_f, tau_A  the values of the sliders, in [0, 1].

    `overlap[f, A]` and `hits[f, A]` hold the numbers of each picture: intersection over union of
    its outline with the source's, and success.
    """

    title = "What Plug-and-Play injects, and for how long"

    @torch.no_grad()
    def __init__(self, edit: Callable[..., Tensor], sd: Latent, x: Tensor, prompt: str, target: str,
                 path: Sequence[int], *, outline: Callable[[Tensor], Tensor],
                 success: Callable[[Tensor], Tensor], w: float = 5.0, negative: str = "",
                 tau_f: Sequence[float] = SHARES, tau_A: Sequence[float] = SHARES) -> None:
        _check(x, prompt, target, w, tau_f, tau_A)
        self._x, self._target, self._S = x.cpu(), target, len(path) - 1
        self._f, self._A = sorted(tau_f), sorted(tau_A)
        self._pixels, self.overlap, self.hits = {}, {}, {}
        states = list(invert(sd.eps(prompt), sd.schedule, sd.encode(x), path))
        self._outline, pairs = outline(x).cpu(), list(product(self._f, self._A))
        with counted(lambda x, _t: x, len(pairs), "injecting") as tick:
            for key in pairs:
                z = edit(sd, states, prompt, target, path, negative=negative, w=w,
                         tau_f=key[0], tau_A=key[1])
                made = sd.decode(z).clamp(-1, 1)
                there = outline(made).cpu()
                self._pixels[key] = made.cpu(), there
                self.overlap[key] = metrics.iou(there, self._outline).tolist()
                self.hits[key] = success(made).tolist()
                tick(z, 0)
        self._plots = [self._plot(i) for i in range(len(x))]
        super().__init__({"tau_f": slider("features, tau_f", self._f, self._f[0]),
                          "tau_A": slider("self-attention, tau_A", self._A, self._A[0]),
                          **portrait(x)})

    def _plot(self, i: int) -> Plot:
        curves = {f"tau_A = {A:g}": (self._f, [self.overlap[f, A][i] for f in self._f])
                  for A in self._A}
        ends = listed(f"{ys[0]:.3f} and {ys[-1]:.3f} ({name})" for name, (_, ys) in curves.items())
        return Plot("How much of the outline stays", "tau_f", "IoU with the source's outline",
                    curves, f"A curve over tau_f for each tau_A, at tau_f = {self._f[0]:g} and "
                    f"{self._f[-1]:g}: {ends}.")

    def draw(self, tau_f: float, tau_A: float, which: int = 0) -> Frame:
        key, free = (tau_f, tau_A), (self._f[0], self._A[0])
        x, (made, there) = self._x[which], (part[which] for part in self._pixels[key])
        iou, hit = self.overlap[key][which], self.hits[key][which]
        moved = rmse(made[None], self._pixels[free][0][which:which + 1])[0]
        row = [Picture("source", x, "the source, whose layout is injected"),
               Picture("edit", made, f"the edit, '{self._target}', IoU {iou:.3f}"),
               Picture("outlines", both(self._outline[which], there),
                       "blue where both outlines are, orange where one of them is alone"),
               Picture("what the edit changed", made - x,
                       "difference of the edit and the source, grey is nothing")]
        words = (f"Features in the first {tau_f:.0%} of {self._S} hops, self-attention in the "
                 f"first {tau_A:.0%}: IoU of the outlines {iou:.3f}, "
                 f"{'as' if hit else 'not as'} asked for. RMSE {moved:.3f} from the edit with "
                 f"tau_f = {free[0]:g}, tau_A = {free[1]:g}.")
        return Frame([row], words, self._plots[which], (tau_f, iou))

    def _static(self) -> Figure:
        rows = [[Picture("source", self._x[0], "") if f is None else
                 Picture(f"f {f:g}, A {A:g}\nIoU {self.overlap[f, A][0]:.3f}",
                         self._pixels[f, A][0][0], "") for f in (None, *self._f)]
                for A in self._A]
        found = listed(f"{self.overlap[f, A][0]:.3f} ({f:g}, {A:g})"
                       for f, A in product(self._f, self._A))
        return still(f"'{self._target}' under tau_f (across) and tau_A (down)", rows,
                     f"A source, and its edits to '{self._target}' under several tau_f and tau_A, "
                     f"with an IoU of the outlines of {found}. {self._plots[0].alt}",
                     self._plots[0])


def both(a: Tensor, b: Tensor) -> Tensor:
    """Two masks (h, w) bool as a picture: blue where they agree, vermilion where one is alone."""
    out = torch.ones(3, *a.shape)
    for where, colour in ((a & b, INSIDE), (a ^ b, ALONE)):
        out[:, where] = torch.tensor(colour)[:, None]
    return out


# ---- features -------------------------------------------------------------------------------


class DecoderFeatures(Explorer):
    """Principal components of features of several pictures, a layer and a time at a time.

    sd       a text-to-image model.
    x        three or more pictures (b, 3, h, w) in [-1, 1], inverted under their `prompts`, w = 1.
    path     noisy to clean, of three hops or more; features are read at each of its times.
    layers   name -> module whose output (b, c, h, w) is looked at; `decoder(sd)` if None.

    The components of a layer and time are those of all places of all pictures together, so that
    one colour means one thing. `shares[t, name]` is what three of them tell of the variance.
    """

    title = "Three principal components of what a layer holds"

    @torch.no_grad()
    def __init__(self, sd: Latent, x: Tensor, prompts: Prompt, path: Sequence[int], *,
                 layers: Modules | None = None) -> None:
        check(x, "x")
        for name, n in (("x", len(x)), ("path", len(path) - 1)):
            if n < LEAST:
                kind = "pictures" if name == "x" else "hops"
                raise ValueError(f"{name} has {n} {kind}: accepted are {LEAST} or more")
        layers = decoder(sd) if layers is None else layers
        self._x, self._times, self._names = x.cpu(), list(path[:-1]), list(layers)
        self._maps, self.shares = {}, {}
        with counted(sd.eps(prompts), 2 * (len(path) - 1), "reading features") as call:
            for state in list(invert(call, sd.schedule, sd.encode(x), path))[1:]:
                for name, f in read(lambda s=state: call(s.x, s.t), layers).items():
                    self._maps[state.t, name], self.shares[state.t, name] = components(f)
        self._plot = self._curves()
        labels = [(f"t = {t}", t) for t in self._times]
        super().__init__({"t": slider("time", labels, self._times[0]),
                          "layer": buttons("layer", self._names)})

    def _curves(self) -> Plot:
        curves = {name: (self._times, [self.shares[t, name] for t in self._times])
                  for name in self._names}
        ends = listed(f"{ys[0]:.2f} and {ys[-1]:.2f} ({name})" for name, (_, ys) in curves.items())
        return Plot("How much of the variance three components tell", "time t", "share", curves,
                    f"A curve over t for each layer, at t = {self._times[0]} and "
                    f"{self._times[-1]}: {ends}.")

    def draw(self, t: int, layer: str) -> Frame:
        maps, share = self._maps[t, layer], self.shares[t, layer]
        above = [Picture(f"no. {i}", x, f"picture {i}, as it is")
                 for i, x in enumerate(self._x, start=1)]
        below = [Picture(f"{layer}, t = {t}", m, f"components of picture {i} as red, green, blue")
                 for i, m in enumerate(maps, start=1)]
        words = (f"{layer} at t = {t}: maps of {maps.shape[2]} x {maps.shape[3]}; three components "
                 f"tell {share:.0%} of the variance.")
        return Frame([above, below], words, self._plot, (t, share))

    def _static(self) -> Figure:
        t, names = spread(self._times, LEAST)[1], spread(self._names, ROWS)
        rows = [[Picture(f"no. {i}", x, "") for i, x in enumerate(self._x, start=1)]]
        rows += [[Picture(name if i == 0 else "", m, "")
                  for i, m in enumerate(_alike(self._maps[t, name], self._x))] for name in names]
        told = listed(f"{self.shares[t, name]:.2f} ({name})" for name in names)
        return still(f"Three components of each layer at t = {t}, one colour code a row", rows,
                     f"{len(self._x)} pictures, and below them their features at t = {t} as red, "
                     f"green and blue, a layer a row; a share of the variance of {told}. "
                     f"{self._plot.alt}", self._plot)


def decoder(sd: Latent) -> dict[str, nn.Module]:
    """The second convolution of every ResNet of the decoder, in order: "up 1.0" and so on.

    Its output is the feature before the shortcut sum.
    """
    return {f"up {i}.{j}": net.conv2 for i, block in enumerate(sd.unet.up_blocks)
            for j, net in enumerate(block.resnets)}


def read(run: Callable[[], object], layers: Modules) -> dict[str, Tensor]:
    """What the layers put out while run() calls the network: name -> (b, c, h, w), the last call's.
    """
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in layers.items():
            stack.enter_context(tapped(module, lambda f, name=name: found.update({name: f})))
        run()
    return found


def components(f: Tensor, n: int = 3) -> tuple[Tensor, float]:
    """The first n principal components of features f (b, c, h, w), and their share of the variance.

    (b, n, h, w) in [-1, 1], each stretched over all pictures. A component's sign is free: here its
    largest entry is positive.
    """
    rows = f.permute(0, 2, 3, 1).flatten(0, 2).double()  # bhw c
    rows = rows - rows.mean(0)
    _, sizes, axes = torch.linalg.svd(rows, full_matrices=False)
    axes = axes[:n]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    along = rows @ axes.T
    low, high = along.amin(0), along.amax(0)
    light = 2 * (along - low) / (high - low).clamp(min=torch.finfo(rows.dtype).tiny) - 1
    maps = light.unflatten(0, (f.shape[0], *f.shape[2:])).permute(0, 3, 1, 2)
    total = sizes.square().sum().clamp(min=torch.finfo(rows.dtype).tiny)
    return maps.float().cpu(), float(sizes[:n].square().sum() / total)


def _alike(maps: Tensor, x: Tensor) -> Tensor:
    """Maps enlarged to the pictures' size in whole squares, for a figure with both."""
    return nn.functional.interpolate(maps, x.shape[2:], mode="nearest")


# ---- refusals -------------------------------------------------------------------------------


def _check(x: Tensor, prompt: str, target: str, w: float, tau_f: Sequence[float],
           tau_A: Sequence[float]) -> None:
    check(x, "x")
    for name, said in (("prompt", prompt), ("target", target)):
        if not isinstance(said, str) or not said:
            raise ValueError(f"{name}={said!r:.60}: accepted is one sentence")
    check_finite("w", w)
    for name, values in (("tau_f", tau_f), ("tau_A", tau_A)):
        whole = isinstance(values, Sequence) and len(values) and len(set(values)) == len(values)
        if not whole:
            raise ValueError(f"{name}={values!r}: accepted are one or more numbers, all different")
        check_finite(name, *values)
        if not all(0 <= share <= 1 for share in values):
            raise ValueError(f"{name}={values!r}: accepted are shares of the path in [0, 1]")
