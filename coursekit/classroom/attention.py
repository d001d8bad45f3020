"""The explorer of cross-attention: where the network looks for each word, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from coursekit.classroom.explorer import (
    Explorer,
    buttons,
    check,
    check_finite,
    chooser,
    counted,
    listed,
    portrait,
    slider,
    spread,
)
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.classroom.show import Figure
from coursekit.diffusion.sample import ddim
from coursekit.nets.latent import Latent
from coursekit.nets.wordmaps import watched

LIGHT, EDGE = (0.88, 0.79, -0.48), (0.67, -0.27, -1.0)  # yellow and vermilion, in [-1, 1]
DIM, OPAQUE = 0.5, 0.8  # how bright the picture below a map is, and how much its peak hides of it
SMALL = 128  # pixels: a picture with a map over it is shrunk to less than twice this width
ROW = 6  # pictures in a row on paper


class AttentionMaps(Explorer):
    """The words of a prompt over the picture: each lights up where it is attended to.

    sd        a text-to-image model; prompt: one sentence, negative and w as in `sd.eps`.
    noise     latents (b, c, h, w), e.g. sd.noise(1, generator).
    steps     hops of the path, >= 2; the network is called once for each.
    sizes     the heights of the maps to choose from, as nets.wordmaps.watched takes them.

    `maps` holds the numbers: a nets.wordmaps.WordMaps. A map is drawn as shares of its own peak.
    """

    title = "Attention to each word"

    @torch.no_grad()
    def __init__(self, sd: Latent, prompt: str, noise: Tensor, *, negative: str = "",
                 w: float = 5.0, steps: int = 20, sizes: Sequence[int] = (16, 8)) -> None:
        check(noise, "noise", sd.unet.config.in_channels, steps=(steps, 2, sd.schedule.T))
        check_finite("w", w)
        eps, self.maps = watched(sd, prompt, negative, w, sizes=sizes)
        path = sd.path(steps)
        self._prompt, self._times, self._found = prompt, path[:-1], {}
        with counted(eps, len(path) - 1, "sampling") as call:
            walk = ddim(call, sd.schedule, noise, path)
            next(walk)  # the noise
            for t, state in zip(self._times, walk, strict=True):
                self._found[t] = small(sd.decode(state.x0))
        self._x = small(sd.decode(state.x))
        # the share of all attention that a column gets: at a step, for each picture
        self._shares = {(t, n): self.maps.at(t, n).mean((2, 3)).tolist()
                        for t in self._times for n in self.maps.sizes}
        self._plots = {(n, i): self._plot(n, i)
                       for n in self.maps.sizes for i in range(len(noise))}
        labels = [(f"{i} of {len(self._times)} (t = {t})", t)
                  for i, t in enumerate(self._times, start=1)]
        names = [f"{i}: {word}" for i, word in enumerate(self.maps.words, start=1)]
        super().__init__({"t": slider("step", labels, self._times[len(self._times) // 2]),
                          "size": buttons("height of maps", self.maps.sizes),
                          "word": chooser("word", names), **portrait(noise)})

    def _plot(self, n: int, i: int) -> Plot:
        start, *words, end = zip(*(self._shares[t, n][i] for t in self._times), strict=True)
        curves = {"start": start, "all words": [sum(at) for at in zip(*words, strict=True)],
                  "end and padding": end}
        ends = "; ".join(f"{name} {ys[0]:.1%} and {ys[-1]:.1%}" for name, ys in curves.items())
        return Plot(f"What the {n} rows of the map attend to", "time t", "share of attention",
                    {name: (self._times, ys) for name, ys in curves.items()},
                    f"Three curves over t that sum to 1; at the first and the last step: {ends}.")

    def draw(self, t: int, size: int, word: int, which: int = 0) -> Frame:
        maps, share = self.maps.at(t, size)[which, 1:-1].cpu(), self._shares[t, size][which]
        name, step = self.maps.words[word], self._times.index(t) + 1
        top = [Picture("the picture", self._x[which], "the picture that sampling ends at"),
               Picture(f"x_0-prediction, t = {t}", self._found[t][which],
                       f"what the network believes x_0 to be at t = {t}"),
               Picture(f"map of {name}", grey(maps[word]),
                       f"the map of '{name}' alone, {_peak(maps[word])}")]
        row = [self._over(i, maps[i], share[i + 1], self._x[which], i == word)
               for i in range(len(maps))]
        mean = sum(self._shares[s, size][which][word + 1] for s in self._times) / len(self._times)
        text = (f"Step {step}, t = {t}: '{name}' gets {share[word + 1]:.2%} of the attention at "
                f"{size} rows, {mean:.2%} over all steps. All words get {sum(share[1:-1]):.1%}, "
                f"the start token {share[0]:.1%}, end and padding {share[-1]:.1%}.")
        return Frame([top, row], text, self._plots[size, which], (t, sum(share[1:-1])))

    def _over(self, i: int, heat: Tensor, share: float, x: Tensor, chosen: bool) -> Picture:
        lit = framed(tinted(x, heat)) if chosen else tinted(x, heat)
        word = self.maps.words[i]
        return Picture(f"{word}\n{share:.2%}", lit,
                       f"word {i + 1}, '{word}': {share:.2%} of the attention, {_peak(heat)}"
                       f"{', framed as it is chosen' if chosen else ''}")

    def _static(self) -> Figure:
        n, words = self.maps.sizes[0], self.maps.words
        heats = self.maps.mean(n)[0].cpu()
        shares = heats.mean((1, 2))[1:-1].tolist()
        row = [Picture("picture", self._x[0], "")]
        row += [self._over(i, heats[i + 1], shares[i], self._x[0], False)
                for i in range(len(words))]
        sharp = max(range(len(words)), key=lambda i: float(heats[i + 1].max()) / shares[i])
        shown = spread(self._times, ROW)
        steps = [Picture(f"{words[sharp]}, t = {t}",
                         tinted(self._x[0], self.maps.at(t, n)[0, sharp + 1].cpu()), "")
                 for t in shown]
        said = listed(f"'{word}' {share:.2%}" for word, share in zip(words, shares, strict=True))
        return still(
            f"Attention to each word, mean of {len(self._times)} steps, and of one by step",
            [*(row[i:i + ROW] for i in range(0, len(row), ROW)), steps],
            f"A picture drawn for '{self._prompt}', and over it the attention at {n} rows: {said}. "
            f"The last row shows word {sharp + 1}, '{words[sharp]}', whose map has the sharpest "
            f"peak, at t = {listed(shown)}. {self._plots[n, 0].alt}", self._plots[n, 0])


# ---- maps as pictures -----------------------------------------------------------------------


def tinted(x: Tensor, heat: Tensor) -> Tensor:
    """A picture (3, h, w) in dim grey, yellow where heat (m, n) >= 0 is near its peak."""
    light = heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
    light = OPAQUE * F.interpolate(light[None, None], x.shape[1:], mode="nearest")[0]  # 1 h w
    dark = DIM * (x.clamp(-1, 1).mean(0, keepdim=True) + 1) - 1
    return dark + light * (x.new_tensor(LIGHT).view(3, 1, 1) - dark)


def framed(x: Tensor) -> Tensor:
    """A picture (3, h, w) with a frame of two pixels, laid over its margin."""
    out = x.new_tensor(EDGE).view(3, 1, 1).expand_as(x).clone()
    out[:, 2:-2, 2:-2] = x[:, 2:-2, 2:-2]
    return out


def grey(heat: Tensor) -> Tensor:
    """A map (m, n) as a picture of its own size, black is 0 and white the peak."""
    light = heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
    return (2 * light - 1).expand(3, -1, -1)


def small(x: Tensor) -> Tensor:
    """Pictures (b, 3, h, w) on the CPU, large ones shrunk: a row of words is drawn at once."""
    factor = max(1, x.shape[3] // SMALL)
    return F.avg_pool2d(x, factor).cpu() if factor > 1 else x.cpu()


def _peak(heat: Tensor) -> str:
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return (f"most in row {row + 1} of {heat.shape[0]}, column {column + 1} of {heat.shape[1]}, "
            f"{float(heat.max() / heat.mean()):.2f} times the mean")

