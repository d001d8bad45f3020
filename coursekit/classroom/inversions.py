"""The explorer of inversions: a picture brought back, and edited, under guidance in several ways.

    plain            nothing is done: under w, sampling leaves the states of the inversion
    null_text        the empty text is optimised, hop by hop          Mokady et al. 2023
    negative_prompt  the source's own prompt stands in its place      Miyake et al. 2023
    direct           the source is put back on its states             Ju et al. 2024
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product

import torch
from torch import Tensor

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
)
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.classroom.show import Figure
from coursekit.diffusion import guided
from coursekit.diffusion.sample import State, ddim, invert
from coursekit.nets.latent import Latent, Text

Walk = Iterable[State]
Draw = Callable[..., Walk]
Method = Callable[[Draw, Latent, Sequence[State], str, float], Walk]
FLOOR = 1e-4  # RMSE of latents: rounding is less, and a logarithmic axis must stand


# ---- source and target ----------------------------------------------------------------------


def apart(sd: Latent, noise: Tensor, prompt: str, target: str, path: Sequence[int], *, w: float,
          negative: str | Mapping[int, Text] = "",
          pivot: Mapping[int, Tensor] | None = None) -> Iterator[State]:
    """Draws b sources and b targets from one noise (b, c, h, w), neither of which sees the other.

    State.x is (2b, c, h, w), the sources first. The arguments are those of Prompt-to-Prompt's
    `pair`, which ties the targets to the sources by their attention.
    """
    b = len(noise)
    both = sd.text([prompt] * b + [target] * b)
    if isinstance(negative, Mapping):
        at = {t: sd.eps(both, _twice(text), w) for t, text in negative.items()}
    else:
        at = dict.fromkeys(path, sd.eps(both, negative, w))
    for state in ddim(lambda x, t: at[t](x, t), sd.schedule, torch.cat([noise, noise]), path):
        if pivot is not None:
            state.x = torch.cat([pivot[state.t], state.x[b:]])
        yield state


def _twice(text: Text) -> Text:
    return text if len(text.tokens) == 1 else text.then(text)


# ---- methods --------------------------------------------------------------------------------
# Each is given draw(negative=.., pivot=..), which walks down from the inverted noise under w, and
# the pivot: the states of inversion at w = 1, clean to noisy. It returns what it draws.


def plain(draw: Draw, sd: Latent, pivot: Sequence[State], prompt: str, w: float) -> Walk:
    return draw()


def null_text(draw: Draw, sd: Latent, pivot: Sequence[State], prompt: str, w: float,
              iterations: int = 5) -> Walk:
    """iterations: updates a hop; each picture has embeddings of its own."""
    empty = sd.text("").rows(len(pivot[0].x))
    found = guided.null_text(lambda tokens: sd.eps(Text(tokens, empty.pooled)), sd.eps(prompt),
                             sd.schedule, pivot, empty.tokens, w,
                             iterations if w != 1 else 0)  # there the gradient is zero
    return draw(negative={a.t: Text(b.null, empty.pooled) for a, b in pairwise(found)})


def negative_prompt(draw: Draw, sd: Latent, pivot: Sequence[State], prompt: str, w: float) -> Walk:
    return draw(negative=prompt)


def direct(draw: Draw, sd: Latent, pivot: Sequence[State], prompt: str, w: float) -> Walk:
    return draw(pivot={state.t: state.x for state in pivot})


METHODS: Mapping[str, Method] = {"plain DDIM": plain, "null-text": null_text,
                                 "negative prompt": negative_prompt, "direct": direct}


# ---- the explorer ---------------------------------------------------------------------------


class Inversions(Explorer):
    """Inversion at w = 1 with `prompt`, then source and edit under w, one method beside another.

    sd               a text-to-image model.
    x                source pictures (b, 3, h, w) in [-1, 1]; prompt says what they show, target
                     what they shall show.
    weights, steps   values of w, and of S; paths are sd.path(S).
    methods          name -> method; what they draw is compared with the pivot at every time.
    draw             how source and target are drawn: `apart`, or edits.p2p.pair.

    The network runs 2 S hops and more for every method and pair of w and S.
    """

    title = "Ways back under guidance"

    @torch.no_grad()
    def __init__(self, sd: Latent, x: Tensor, prompt: str, target: str, *,
                 weights: Sequence[float] = (1.0, 3.0, 7.5), steps: Sequence[int] = (10, 20),
                 methods: Mapping[str, Method] = METHODS, draw: Draw = apart) -> None:
        _check(sd, x, prompt, target, weights, steps, methods)
        self._x, self._prompt, self._target = x.cpu(), prompt, target
        self._weights, self._steps, self._names = sorted(weights), sorted(steps), list(methods)
        self._gap, self._pixels, self._calls = {}, {}, {}
        z = sd.encode(x)
        self._ceiling = _decoded(sd, z)
        self._run(sd, z, methods, draw)
        self._plots = {(w, S, i): self._plot(w, S, i) for w, S, i in
                       product(self._weights, self._steps, range(len(x)))}
        super().__init__({"method": buttons("method", methods),
                          "w": slider("weight w", self._weights, self._weights[0]),
                          "S": buttons("hops S", self._steps), **portrait(x)})

    def _run(self, sd: Latent, z: Tensor, methods: Mapping[str, Method], draw: Draw) -> None:
        """For each method, w and S: pictures, how far the source is from the pivot, calls."""
        calls = 0

        def count(_net: object, _args: object) -> None:
            nonlocal calls
            calls += 1

        hook = sd.unet.register_forward_pre_hook(count)
        runs = len(methods) * len(self._weights) * sum(self._steps)
        try:
            with counted(lambda x, _t: x, runs, "there and back") as tick:
                for S in self._steps:
                    path, calls = sd.path(S), 0
                    pivot = list(invert(sd.eps(self._prompt), sd.schedule, z, path))
                    up = calls
                    for (name, method), w in product(methods.items(), self._weights):
                        def pair(w: float = w, path: Sequence[int] = path,
                                 noise: Tensor = pivot[-1].x, **how: object) -> Walk:
                            return draw(sd, noise, self._prompt, self._target, path, w=w, **how)

                        calls = up
                        self._keep(sd, (name, w, S), pivot,
                                   method(pair, sd, pivot, self._prompt, w))
                        self._calls[name, w, S] = calls
                        for _ in range(S):
                            tick(z, 0)
        finally:
            hook.remove()

    def _keep(self, sd: Latent, key: tuple, pivot: Sequence[State], walk: Walk) -> None:
        at, gap, b = {state.t: state.x for state in pivot}, {}, len(pivot[0].x)
        for state in walk:
            gap[state.t] = rmse(state.x[:b], at[state.t])
            end = state.x
        self._gap[key], self._pixels[key] = gap, _decoded(sd, end).split(b)

    def _curve(self, key: tuple, i: int) -> tuple[list[int], list[float]]:
        _, *times = self._gap[key]  # where both begin, the two are one
        return times[::-1], [max(self._gap[key][t][i], FLOOR) for t in times[::-1]]

    def _plot(self, w: float, S: int, i: int) -> Plot:
        curves = {name: self._curve((name, w, S), i) for name in self._names}
        ends = listed(f"{ys[0]:.2g} ({name})" for name, (_, ys) in curves.items())
        return Plot(f"How far the source is from its inversion, w = {w:g}, S = {S}", "time t",
                    "RMSE of latents", curves,
                    f"A curve over t for each method, logarithmic. At the end the RMSE is {ends}; "
                    f"{FLOOR:g} and less is drawn as {FLOOR:g}.", "y")

    def draw(self, method: str, w: float, S: int, which: int = 0) -> Frame:
        key = method, w, S
        x, (back, edit) = self._x[which], (part[which] for part in self._pixels[key])
        ts, gaps = self._curve(key, which)
        best, found = _psnr(self._ceiling[which], x), _psnr(back, x)
        row = [Picture("source", x, f"the source, '{self._prompt}'"),
               Picture("reconstruction", back, f"what comes back, PSNR {found:.1f} dB"),
               Picture("edit", edit, f"the edit, '{self._target}'"),
               Picture("what the edit changed", edit - x,
                       "difference of the edit and the source, grey is nothing")]
        end = self._gap[key][ts[0]][which]
        words = (f"{method}, w = {w:g}, S = {S}: PSNR {found:.1f} dB, the autoencoder alone has "
                 f"{best:.1f} dB. The source ends {end:.4f} from its latents (RMSE); "
                 f"{self._calls[key]} calls of the network.")
        return Frame([row], words, self._plots[w, S, which], (ts[0], gaps[0]))

    def _static(self) -> Figure:
        w, S = self._weights[-1], self._steps[-1]
        backs, edits = ([self._pixels[name, w, S][k][0] for name in self._names] for k in (0, 1))
        found = [f"{_psnr(back, self._x[0]):.1f} dB" for back in backs]
        best, plot = f"{_psnr(self._ceiling[0], self._x[0]):.1f} dB", self._plots[w, S, 0]
        above = [Picture("source", self._x[0], "")] + [
            Picture(f"{name}\n{db}", back, "")
            for name, db, back in zip(self._names, found, backs, strict=True)]
        below = [Picture(f"autoencoder\n{best}", self._ceiling[0], "")] + [
            Picture("its edit", edit, "") for edit in edits]
        said = listed(f"{db} ({name})" for name, db in zip(self._names, found, strict=True))
        return still(
            f"Ways back under w = {w:g}, S = {S}", [above, below],
            f"Above a source, '{self._prompt}', and its reconstructions, with a PSNR of {said}; "
            f"below what the autoencoder alone gives back, {best}, and the edits to "
            f"'{self._target}'. {plot.alt}", plot)


def _decoded(sd: Latent, z: Tensor) -> Tensor:
    return sd.decode(z).clamp(-1, 1).cpu()


def _psnr(a: Tensor, b: Tensor) -> float:
    """In dB; the range of pictures is 2."""
    return 20 * math.log10(2 / max(rmse(a[None], b[None])[0], 1e-6))


def _check(sd: Latent, x: Tensor, prompt: str, target: str, weights: Sequence[float],
           steps: Sequence[int], methods: Mapping[str, Method]) -> None:
    check(x, "x")
    for name, said in (("prompt", prompt), ("target", target)):
        if not isinstance(said, str) or not said:
            raise ValueError(f"{name}={said!r:.60}: accepted is one sentence")
    for name, values in (("weights", weights), ("steps", steps)):
        if not isinstance(values, Sequence) or not values or len(set(values)) < len(values):
            raise ValueError(f"{name}={values!r}: accepted are one or more numbers, all different")
    check_finite("weights", *weights)
    for S in steps:
        check(x, "x", steps=(S, 2, sd.schedule.T))
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError(f"methods={methods!r:.60}: accepted are one or more methods by name")
