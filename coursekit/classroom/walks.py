"""Explorers of walks: down from noise to a portrait, and up and down again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ipywidgets import IntSlider, ToggleButtons
from torch import Tensor

from coursekit.classroom.explorer import (
    Explorer,
    buttons,
    check,
    counted,
    listed,
    portrait,
    rmse,
    seeded,
    wide,
)
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.classroom.show import Figure
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import ddim, invert, sigma
from coursekit.diffusion.schedule import Schedule

Walk = Iterable[Any]  # states with .t and .x
Scheme = Callable[[Eps, Schedule, Tensor, Sequence[int]], tuple[Walk, Walk]]
FLOOR = 1e-7  # RMSE: a logarithmic axis must stand also where the way back is exact


class SamplingPath(Explorer):
    """From one noise (b, 3, h, w) down the path trailing(S), for every S and eta.

    steps  the values of S.  etas  0 DDIM .. 1 DDPM.  sum(steps) * len(etas) calls of eps.
    """

    title = "From noise to a portrait, hop by hop"

    @torch.no_grad()
    def __init__(self, eps: Eps, schedule: Schedule, noise: Tensor, *,
                 steps: Sequence[int] = (5, 10, 20, 40), etas: Sequence[float] = (0.0, 0.5, 1.0),
                 seed: int = 0) -> None:
        check(noise, "noise")
        self._schedule, self._steps, self._etas, self._runs = schedule, steps, etas, {}
        with counted(eps, sum(steps) * len(etas), "sampling") as call:
            for S in steps:
                for eta in etas:
                    path = schedule.trailing(S)
                    walk = ddim(call, schedule, noise, path, eta, seeded(seed))
                    self._runs[S, eta] = list(walk)
        S, hop = place("hops from the noise", steps)
        super().__init__({"S": S, "eta": buttons("eta", etas), "hop": hop})

    def draw(self, S: int, eta: float, hop: int) -> Frame:
        run = self._runs[S, eta]
        state = run[min(hop, S)]
        words = (f"{self._kind(eta)}, S = {S}: after {min(hop, S)} hops, t = {state.t}."
                 + self._next(run, min(hop, S), eta))
        rows = [self._row(f"x_t, t = {state.t}", state.x)]
        if state.x0 is not None:
            rows.append(self._row("x_0-prediction", state.x0))
        return Frame(rows, words)

    def _kind(self, eta: float) -> str:
        return {0.0: "DDIM", 1.0: "DDPM"}.get(eta, f"Between DDIM and DDPM, eta = {eta:g}")

    def _next(self, run: Sequence[Any], hop: int, eta: float) -> str:
        if hop + 1 == len(run):
            return ""
        t, s = run[hop].t, run[hop + 1].t
        return f" The hop to {s} adds noise of deviation {sigma(self._schedule, t, s, eta):.3f}."

    def _row(self, name: str, x: Tensor) -> list[Picture]:
        return [Picture(name, p, f"{name}, portrait {i + 1}") for i, p in enumerate(x)]

    def _static(self) -> Figure:
        rows = [[Picture(f"S = {S}, eta = {eta:g}", self._runs[S, eta][-1].x[0], "")
                 for S in self._steps] for eta in self._etas]
        return still(
            "One noise, every path", rows,
            f"Samples from one noise. Columns: S = {listed(self._steps)} hops; rows: eta = "
            f"{listed(self._etas)}. The sample of most hops differs from the others of its row by "
            f"{'; '.join(map(self._apart, self._etas))}.")

    def _apart(self, eta: float) -> str:
        ends = [self._runs[S, eta][-1].x for S in self._steps]
        return f"an RMSE of {listed(f'{rmse(ends[-1], x)[0]:.2f}' for x in ends[:-1])} (eta {eta:g})"


class RoundTrip(Explorer):
    """Up to noise and down again: where the way back leaves the way there.

    schemes  name -> function (eps, schedule, x0, path) -> (states on the way up, on the way down),
             in any order, with .t and .x; None is plain DDIM inversion.
    steps    the path is karras(S) for each S; plain inversion calls eps 2 sum(steps) times.
    """

    title = "There and back: inversion and its error"

    @torch.no_grad()
    def __init__(self, eps: Eps, schedule: Schedule, x0: Tensor, *,
                 steps: Sequence[int] = (5, 10, 20, 50),
                 schemes: Mapping[str, Scheme] | None = None) -> None:
        check(x0, "x0")
        self._x0, self._steps, self._schemes = x0, steps, dict(schemes or {"plain DDIM": plain})
        self._up, self._down, self._rmse = {}, {}, {}
        with counted(eps, 2 * sum(steps) * len(self._schemes), "up and down") as call:
            for name, scheme in self._schemes.items():
                for S in steps:
                    up, down = scheme(call, schedule, x0, schedule.karras(S))
                    self._up[name, S] = {state.t: state.x for state in up}
                    self._down[name, S] = {state.t: state.x for state in down}
        for key, up in self._up.items():
            self._rmse[key] = {t: rmse(self._down[key][t], up[t]) for t in sorted(up)}
        self._plots = {(name, i): self._plot(name, i)
                       for name in self._schemes for i in range(len(x0))}
        S, hop = place("hops from x_0", steps)
        super().__init__({"scheme": buttons("scheme", self._schemes), "S": S, "hop": hop,
                          **portrait(x0)})

    def _plot(self, name: str, i: int) -> Plot:
        curves = {}
        for S in self._steps:
            *times, _ = self._rmse[name, S]  # at the last, the turning point, the two are one
            curves[S] = {t: max(self._rmse[name, S][t][i], FLOOR) for t in times}
        ends = listed(f"{curve[min(curve)]:.2g} with S = {S}" for S, curve in curves.items())
        return Plot(f"{name}: the gap between the two ways", "time t",
                    "RMSE", {f"S = {S}": (list(c), list(c.values())) for S, c in curves.items()},
                    f"A curve over t for every S. Back at the portrait the RMSE is {ends}.", "y")

    def draw(self, scheme: str, S: int, hop: int, which: int = 0) -> Frame:
        up, down, gaps = (d[scheme, S] for d in (self._up, self._down, self._rmse))
        times = list(gaps)
        t, end = times[min(hop, len(times) - 1)], times[0]
        gap, error, noise = gaps[t][which], gaps[end][which], up[times[-1]][which]
        found = down[end][which]
        rows = [
            [Picture("x_0", self._x0[which], "the portrait"),
             Picture(f"inverted, t = {times[-1]}", noise, "the noise that inversion found"),
             Picture("reconstruction", found, f"where the way back ends, RMSE {error:.4f}")],
            [Picture(f"way up, t = {t}", up[t][which], f"state on the way up at t = {t}"),
             Picture(f"way down, t = {t}", down[t][which], f"state on the way down at t = {t}"),
             Picture("difference x 4", 4 * (down[t] - up[t])[which],
                     f"difference of the two states, RMSE {gap:.4f}; grey is nothing")]]
        words = (f"{scheme}, S = {S}: at t = {t} the two ways are {gap:.4f} apart (RMSE). Round "
                 f"trip: RMSE {error:.4f}. Deviation of the noise found: {float(noise.std()):.3f}.")
        at = None if t == times[-1] else (t, max(gap, FLOOR))
        return Frame(rows, words, self._plots[scheme, which], at)

    def _static(self) -> Figure:
        name = next(iter(self._schemes))
        row = [Picture("x_0", self._x0[0], "")]
        for S in self._steps:
            gaps, down = self._rmse[name, S], self._down[name, S]
            end = min(gaps)
            row.append(Picture(f"S = {S}\nRMSE {gaps[end][0]:.3f}", down[end][0], ""))
        plot = self._plots[name, 0]
        return still(f"Reconstructions after inversion, {name}", [row],
                     f"A portrait and its reconstructions. {plot.alt}", plot)


def place(label: str, steps: Sequence[int]) -> tuple[ToggleButtons, IntSlider]:
    """Buttons for S and a slider 0..S, which keeps its place on the path when S changes."""
    S = buttons("hops S", steps)
    hop = IntSlider(value=0, min=0, max=steps[0], description=label, **wide())

    def stretch(change: Any) -> None:
        value = round(hop.value / hop.max * change["new"])
        with hop.hold_trait_notifications():
            hop.max, hop.value = change["new"], value

    S.observe(stretch, "value")
    return S, hop


def plain(eps: Eps, schedule: Schedule, x0: Tensor, path: Sequence[int]) -> tuple[Walk, Walk]:
    """DDIM inversion and the same path down again."""
    up = list(invert(eps, schedule, x0, path))
    return up, list(ddim(eps, schedule, up[-1].x, path))
