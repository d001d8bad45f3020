"""The explorers of Prompt-to-Prompt: another prompt for a picture, live or drawn beforehand.

    PromptEditor    type a prompt, weigh its words, move the windows: the edit is drawn as you watch
    PromptWindows   one prompt over windows and the weight of a word, every view at once

Both begin from the source's own states, clean to noisy as `invert` gives them or the other way as
`ddim` does, so that the source stays what it is. They take `edits.p2p.pair` and `edits.p2p.Control`
as arguments: an explorer knows no method.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import ipywidgets
import torch
from torch import Tensor

from coursekit.classroom.background import Background
from coursekit.classroom.explorer import (
    Explorer,
    buttons,
    check,
    check_finite,
    counted,
    inner,
    listed,
    portrait,
    rmse,
    slider,
)
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.classroom.show import Figure
from coursekit.diffusion.sample import State
from coursekit.nets import words
from coursekit.nets.latent import Latent

ALIGN = {"refine": words.refine, "swap": words.swap}
TENTHS = tuple(i / 10 for i in range(11))
LOW, HIGH, STEP = -2.0, 5.0, 0.25  # of a word's weight
PREVIEWS = 4  # pictures on the way to an edit


class Job(NamedTuple):
    """One edit: what to draw, all but the source."""

    target: str
    align: str = "refine"
    cross: float = 0.4
    itself: float = 0.4
    weights: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """What is edited and by which means; `walk` draws it beside an edit."""

    pair: Callable[..., Iterator[State]]
    control: Callable[..., Any]
    sd: Latent
    states: Mapping[int, Tensor]
    prompt: str
    w: float
    negative: str

    @classmethod
    def of(cls, pair: Callable[..., Iterator[State]], control: Callable[..., Any], sd: Latent,
           states: Sequence[State], prompt: str, w: float, negative: str) -> Source:
        """ValueError or TypeError where states or prompt are not as said."""
        if not isinstance(states, Sequence) or len(states) < 3 or \
                not all(isinstance(s, State) for s in states):
            raise TypeError("states: accepted are three states or more, as list(invert(..)) or "
                            "list(ddim(..)) gives them")
        check(states[0].x, "states", sd.unet.config.in_channels)
        if not isinstance(prompt, str) or not prompt:
            raise ValueError(f"prompt={prompt!r:.60}: accepted is one sentence")
        return cls(pair, control, sd, {s.t: s.x for s in states}, prompt, w, negative)

    @property
    def path(self) -> list[int]:
        return sorted(self.states, reverse=True)

    def walk(self, job: Job) -> Iterator[State]:
        """State.x (2b, c, h, w): the sources, which keep to their states, and the edits."""
        how = self.control(align=ALIGN[job.align], cross_attention=job.cross,
                           self_attention=job.itself, weights=dict(job.weights))
        return self.pair(self.sd, self.states[self.path[0]], self.prompt, job.target, self.path,
                         negative=self.negative, w=self.w, control=how, pivot=self.states)

    def picture(self, z: Tensor) -> Tensor:
        return self.sd.decode(z).clamp(-1, 1).cpu()

    def drawn(self, job: Job, tick: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Pictures (b, 3, h, w) of the edits; tick is called once a hop."""
        for state in self.walk(job):
            if state.t != self.path[0]:
                tick(state.x, state.t)
        return self.picture(state.x[len(state.x) // 2:])


# ---- drawn beforehand -----------------------------------------------------------------------


class PromptWindows(Explorer):
    """One edit under every choice of windows and of a word's weight, beside its source.

    pair, control  edits.p2p.pair and Control.
    states         of b sources, at three times or more: their times are the path.
    target         what the edit says; w and negative as in `pair`.
    cross, selves  windows of attention to words and of self-attention, shares of the hops.
    word, weights  a word of the target and factors for it.
    truth          (b, 3, h, w), the perfect edits where they are known.

    The network runs once a hop for each choice of cross, selves and weights.
    """

    title = "Prompt-to-Prompt: windows and a weight"

    @torch.no_grad()
    def __init__(self, pair: Callable[..., Iterator[State]], control: Callable[..., Any],
                 sd: Latent, states: Sequence[State], prompt: str, target: str, *, w: float = 5.0,
                 negative: str = "", cross: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
                 selves: Sequence[float] = (0.0, 0.5), word: str = "",
                 weights: Sequence[float] = (1.0,), align: str = "refine",
                 truth: Tensor | None = None) -> None:
        source = Source.of(pair, control, sd, states, prompt, w, negative)
        _check(cross, selves, word, weights, align)
        self._source, self._target, self._word, self._truth = source, target, word, truth
        self._cross, self._selves, self._weights = sorted(cross), sorted(selves), sorted(weights)
        self._x = source.picture(source.states[source.path[-1]])
        if truth is not None and truth.shape != self._x.shape:
            raise ValueError(f"truth has shape {tuple(truth.shape)}: accepted is that of the "
                             f"sources, {tuple(self._x.shape)}")
        grid = list(product(self._cross, self._selves, self._weights))
        with counted(lambda x, _t: x, len(grid) * (len(source.path) - 1), "editing") as tick:
            self._found = {
                (c, s, g): source.drawn(Job(target, align, c, s, ((word, g),) if word else ()),
                                        tick) for c, s, g in grid}
        self._moved = {key: rmse(x, self._x) for key, x in self._found.items()}
        self._plots = {(g, i): self._plot(g, i) for g in self._weights
                       for i in range(len(self._x))}
        controls = {"cross": slider("attention to words", self._cross, inner(self._cross)),
                    "itself": buttons("self-attention", self._selves)}
        if len(self._weights) > 1:
            controls["weight"] = slider(f"weight of {word}", self._weights, self._first_weight)
        super().__init__({**controls, **portrait(self._x)})

    @property
    def _first_weight(self) -> float:
        return min(self._weights, key=lambda g: abs(g - 1))

    def _plot(self, weight: float, i: int) -> Plot:
        curves = {f"self-attention {s:g}": (self._cross, [self._moved[c, s, weight][i]
                                                          for c in self._cross])
                  for s in self._selves}
        ends = "; ".join(f"{name} {ys[0]:.3f} and {ys[-1]:.3f}" for name, (_, ys) in curves.items())
        said = f", {self._word} weighs {weight:g}" if self._word else ""
        return Plot(f"How far the edit goes from its source{said}", "window of attention to words",
                    "RMSE from the source", curves,
                    "A curve for each window of self-attention, over that of the attention to "
                    f"words; at {self._cross[0]:g} and {self._cross[-1]:g}: {ends}.")

    def draw(self, cross: float, itself: float, weight: float | None = None,
             which: int = 0) -> Frame:
        weight = self._first_weight if weight is None else weight
        x, key = self._x[which], (cross, itself, weight)
        edit, moved = self._found[key][which], self._moved[key][which]
        row = [Picture("source", x, f"the source, '{self._source.prompt}'"),
               Picture("edit", edit, f"the edit, '{self._target}'"),
               Picture("what changed", edit - x, "difference of edit and source, grey is nothing")]
        said = f", weight {weight:g} of '{self._word}'" if self._word else ""
        text = (f"Attention to words {cross:g}, self-attention {itself:g} of the hops{said}: RMSE "
                f"{moved:.3f} from the source")
        if self._truth is not None:
            true = self._truth[which].to(edit)
            row.append(Picture("perfect edit", true, "the perfect edit, rendered"))
            text += f", {rmse(edit[None], true[None])[0]:.3f} from the perfect edit"
        return Frame([row], f"{text}.", self._plots[weight, which], (cross, moved))

    def _static(self) -> Figure:
        g, s = self._first_weight, self._selves[-1]
        row = [Picture("source", self._x[0], "")]
        row += [Picture(f"words {c:g}", self._found[c, s, g][0], "") for c in self._cross]
        if self._truth is not None:
            row.append(Picture("perfect edit", self._truth[0], ""))
        rows, said = [row], ""
        if len(self._weights) > 1:
            c = self._cross[max(0, len(self._cross) - 2)]
            rows.append([Picture(f"{self._word} x {v:g}", self._found[c, s, v][0], "")
                         for v in self._weights])
            said = (f" Below, '{self._word}' weighs {listed(f'{v:g}' for v in self._weights)}, "
                    f"with a window of {c:g}.")
        return still(
            f"Edited to '{self._target:.60}'", rows,
            f"A source, '{self._source.prompt}', and its edits to '{self._target}' with windows of "
            f"{listed(f'{c:g}' for c in self._cross)} for the attention to words, {s:g} for "
            f"self-attention.{said} {self._plots[g, 0].alt}", self._plots[g, 0])


def _check(cross: Sequence[float], selves: Sequence[float], word: str, weights: Sequence[float],
           align: str) -> None:
    for name, values, least in (("cross", cross, 2), ("selves", selves, 1),
                                ("weights", weights, 1)):
        if not isinstance(values, Sequence) or len(set(values)) < max(least, len(values)):
            raise ValueError(f"{name}={values!r}: accepted are {least} or more numbers, all "
                             "different")
        check_finite(name, *values)
    if align not in ALIGN:
        raise ValueError(f"align={align!r}: accepted are {listed(ALIGN)}")
    if not word and tuple(weights) != (1.0,):
        raise ValueError(f"word='' has weights={weights!r}: accepted is a word of the target")


# ---- live -----------------------------------------------------------------------------------


class PromptEditor(Explorer):
    """A text field for another prompt, a slider for each of its words, and the two windows.

    pair, control, w, negative as in `PromptWindows`; states are those of one source, (1, c, h, w).
    target, cross and itself are where it begins.

    Each change is drawn in the background, hop by hop, and stops what was being drawn; an edit that
    has been drawn before is there at once. The network's modules are a copy that shares its
    weights, so the page's other cells may use `sd` meanwhile. `wait` waits for the edit.
    """

    title = "Prompt-to-Prompt: edit a picture by its words"

    @torch.no_grad()
    def __init__(self, pair: Callable[..., Iterator[State]], control: Callable[..., Any],
                 sd: Latent, states: Sequence[State], prompt: str, target: str, *, w: float = 5.0,
                 negative: str = "", cross: float = 0.4, itself: float = 0.4) -> None:
        source = Source.of(pair, control, _twin(sd), states, prompt, w, negative)
        if len(states[0].x) != 1:
            raise ValueError(f"states are of {len(states[0].x)} pictures: accepted is one")
        for name, value in (("cross", cross), ("itself", itself)):
            if value not in TENTHS:
                raise ValueError(f"{name}={value!r}: accepted is a tenth, 0, 0.1, .. 1")
        self._source, self._hops = source, len(source.path) - 1
        self._x, self._notes = source.picture(source.states[source.path[-1]]), {}
        self._first, self._plain = Job(target, "refine", cross, itself), Job(target, "refine", 0, 0)
        with counted(lambda x, _t: x, 2 * self._hops, "editing") as tick:
            self._known = {job: source.drawn(job, tick) for job in (self._plain, self._first)}
        self._now = self._first, self._hops, self._known[self._first]  # job, hop, picture so far
        self._turn = threading.Lock()
        self._work = Background(self._compute, ["edit"], lambda: "edit", lambda _: self.update())
        self._work.start(self._first, {"edit": self._known[self._first]})
        field = ipywidgets.Text(value=target, description="the edit shall show",
                                continuous_update=False, style={"description_width": "11em"},
                                layout={"width": "48em"})
        self.weights = ipywidgets.Box(layout={"flex_flow": "row wrap"})
        self._weigh(target)
        super().__init__({"target": field, "align": buttons("words stand for each other", ALIGN),
                          "cross": slider("attention to words", TENTHS, cross),
                          "itself": slider("self-attention", TENTHS, itself)}, [self.weights])

    def wait(self, seconds: float | None = None) -> None:
        """Until the edit is drawn; raises what went wrong meanwhile."""
        self._work.wait(seconds)

    def update(self, change: Any = None) -> None:
        """Draws the view anew, and begins the edit that a control has asked for by a change."""
        if change is not None:
            if change["owner"] is self.controls["target"]:
                self._weigh(change["new"])
            self._begin()
        super().update(change)

    def _job(self) -> Job:
        factors = tuple((s.description, s.value) for s in self.weights.children if s.value != 1)
        return Job(**{name: control.value for name, control in self.controls.items()},
                   weights=factors)

    def _begin(self) -> None:
        job = self._job()
        known = self._known.get(job)
        self._now = job, 0, self._now[2]
        self._work.start(job, None if known is None else {"edit": known})

    @torch.no_grad()  # holds for one thread only, so it stands where the work is done
    def _compute(self, job: Job, _key: str, check: Callable[[], None]) -> Tensor:
        with self._turn:  # the edit before this one may still be in its last hop
            for i, state in enumerate(self._source.walk(job)):
                check()
                pixels = self._now[2]
                if i and i % -(-self._hops // PREVIEWS) == 0:
                    pixels = self._source.picture(state.x0[1:])
                self._now = job, i, pixels
                self.update()
            self._known[job] = self._source.picture(state.x[1:])
        return self._known[job]

    def _weigh(self, target: str) -> None:
        """A slider for each word that the target has once; a word that stays keeps its weight."""
        before = {s.description: s for s in self.weights.children}
        try:
            found = [piece.lower() for piece, _ in words.pieces(self._source.sd, target)]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._source.sd.text(target)
            self._notes.setdefault(target, " ".join(str(w.message) for w in caught))
        except ValueError:  # too long: the edit itself will say so
            found = []
        once = [word for word in found if found.count(word) == 1 and word[0].isalnum()]
        self.weights.children = [before.get(word) or self._slider(word) for word in once]

    def _slider(self, word: str) -> ipywidgets.FloatSlider:
        made = ipywidgets.FloatSlider(1.0, min=LOW, max=HIGH, step=STEP, description=word,
                                      continuous_update=False, readout_format=".2f",
                                      layout={"width": "20em"})
        made.observe(self.update, "value")
        return made

    def draw(self, target: str, align: str, cross: float, itself: float) -> Frame:
        job, x = self._job(), self._x[0]
        found, (at, hop, pixels) = self._known.get(job), self._now
        edit = (pixels if found is None else found)[0]
        row = [Picture("source", x, f"the source, '{self._source.prompt}'"),
               Picture("edit" if found is not None else f"hop {hop} of {self._hops} ..", edit,
                       f"the edit, '{target}'"),
               Picture("what changed", edit - x, "difference of edit and source, grey is nothing")]
        asked = f"Attention to words {cross:g}, self-attention {itself:g}{_factors(job)}"
        if self._work.error is not None and at == job:
            text = f"It went wrong: {self._work.error}"
        elif found is None:
            text = f"{asked}: drawing '{target}', hop {hop} of {self._hops}."
        else:
            text = f"{asked}: RMSE {rmse(edit[None], x[None])[0]:.3f} from the source."
        return Frame([row], " ".join(filter(None, [text, self._notes.get(target)])))

    def _static(self) -> Figure:
        plain, edit = self._known[self._plain], self._known[self._first]
        far = [rmse(some, self._x)[0] for some in (plain, edit)]
        row = [Picture("source", self._x[0], ""), Picture("new prompt alone", plain[0], ""),
               Picture("Prompt-to-Prompt", edit[0], ""),
               Picture("what it changed", (edit - self._x)[0], "")]
        return still(
            f"Edited to '{self._first.target:.60}'", [row],
            f"A source, '{self._source.prompt}'; what '{self._first.target}' alone draws from its "
            f"noise, RMSE {far[0]:.3f} from the source; and Prompt-to-Prompt's edit, RMSE "
            f"{far[1]:.3f}, with windows of {self._first.cross:g} and {self._first.itself:g}; last "
            "the difference of edit and source.")


def _factors(job: Job) -> str:
    return "".join(f", {word} x {factor:g}" for word, factor in job.weights)


def _twin(sd: Latent) -> Latent:
    """The model with modules of its own, which a control may enter, and the same weights."""
    weights = {id(p): p for p in (*sd.unet.parameters(), *sd.unet.buffers())}
    return replace(sd, unet=deepcopy(sd.unet, weights))
