"""Editing renders by words: Prompt-to-Prompt beside SDEdit, plain DDIM and three trivial rows.

Renders are inverted with their captions, then drawn with captions in which one attribute is
another (`_edits`: subject, hair colour, glasses, expression, background). 200 renders a seed,
three seeds. The judge reads the wanted attribute (target success), and the perfect edit is known.

Prompt-to-Prompt holds the source by direct inversion, and guides away from the old caption: from
the empty one, guidance would raise the contrast of all that the two captions have in common. So it
needs less guidance than drawing anew. Its windows and its w were chosen on seeds that this table
does not use. Its change outside the mask is compared with that of plain DDIM, which is
re-generation from the same noise, three times: under the guidance with which the model draws, which
the bar is about, at matched success, and under the same w. Each is measured against the render, and
against the inverted render sampled again, as what the autoencoder costs is no method's fault. At
matched success means: each other method is swept over its own strength, and the one whose success
is nearest counts. Both successes are in the row; where no strength comes near, the row says so by
them.

Plug-and-Play keeps the layout under prompts that restyle. The shipped model has seen photos alone,
and of other styles it knows no word, so new clothes on a new backdrop are asked for instead: much
of the picture looks otherwise and no outline moves.

Intervals hold 95 %: Wilson's for shares, the percentile bootstrap over edits for ratios, of all
seeds together; in a row of success the three numbers after them are the seeds'. About 90 minutes
on two cores, a few on a GPU; rows come as they are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from coursekit import pretrained
from coursekit.bench import Row
from coursekit.bench._edits import (
    ATTRIBUTES, RESTYLED, Scored, Task, counted, matched, ratio, scored, share, task,
)
from coursekit.classroom import metrics
from coursekit.diffusion.sample import State, ddim, invert, last
from coursekit.diffusion.train import fast_dtype
from coursekit.edits import p2p, pnp, sdedit
from coursekit.nets.latent import Latent
from coursekit.portraits import truth
from coursekit.recipes import portraits_sd

N, SEEDS, STEPS = 200, 3, 30
W = portraits_sd.GUIDANCE
# Of Prompt-to-Prompt: shares of the hops under the source's attention to words and under its
# self-attention, and w
TAU, TAU_S, GUIDED = 0.04, 0.4, 2.5
SWEEPS = {  # method -> what its strength is called, and the strengths
    "Prompt-to-Prompt": ("window", (0.8, 0.4, TAU)),
    "plain DDIM": ("w", (1.0, 2.0, GUIDED, 3.0, W, 7.5)),
    "plain DDIM away from the old caption": ("w", (2.0, GUIDED, W)),
    "SDEdit": ("t0 / T", (0.3, 0.5, 0.7, 0.9)),
}
BARS = {"all": 0.85, "each": 0.7, "iou": 0.85}
RATIOS = {  # column -> what a row calls it, and the most that it may be of another method's
    "moved": ("change outside the mask since the reconstruction", 0.5),
    "outside": ("change outside the mask since the render", 0.5),
    "lpips_w_cf": ("LPIPS_w to the counterfactual", 1.0),
}
COMPARED = ("tas", "lpips_w_cf", "psnr_cf")
Editor = Callable[["Given", float], Tensor]


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Trivial rows and Prompt-to-Prompt in full, the sweeps, what the bars ask, Plug-and-Play."""
    yield from gates(pretrained.load_latent(portraits_sd.NAME, device), seed, device)


class Given:
    """A task whose sources have been inverted.

    states  of the inversion with the captions at w = 1, clean to noisy
    back    (b, 3, 64, 64) the noise sampled again with nothing changed
    """

    def __init__(self, sd: Latent, some: Task, seed: int):
        self.sd, self.task, self.seed = sd, some, seed
        self.path, self.z = sd.path(STEPS), sd.encode(some.truth.source)
        eps = sd.eps(some.prompts)
        self.states: list[State] = list(invert(eps, sd.schedule, self.z, self.path))
        self.back = self.sampled(some.prompts, w=1.0)

    def sampled(self, prompts: Sequence[str], w: float, negative: str | Sequence[str] = "",
                noise: Tensor | None = None) -> Tensor:
        """Pictures of prompts, from the inverted noise or another."""
        eps = self.sd.eps(prompts, negative, w)
        noise = self.states[-1].x if noise is None else noise
        return self.shown(last(ddim(eps, self.sd.schedule, noise, self.path)).x)

    def shown(self, z: Tensor) -> Tensor:
        return self.sd.decode(z.float()).clamp(-1, 1)

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@torch.no_grad()
def gates(sd: Latent, seed: int, device: str, n: int = N, seeds: int = SEEDS) -> Iterator[Row]:
    """The rows for any text-to-image model of this world; n renders a seed, a fifth a kind."""
    if n < len(ATTRIBUTES) or seeds < 1:
        raise ValueError(f"n={n}, seeds={seeds}: accepted are {len(ATTRIBUTES)} and 1 or more")
    judge = pretrained.load("judge", device).net
    given = [Given(sd, task([name], n // len(ATTRIBUTES), 10 * (seed + k) + i, device), seed + k)
             for k in range(seeds) for i, name in enumerate(ATTRIBUTES)]
    yield from table(judge, given, EDITORS, seeds)
    yield from layout(judge, Given(sd, task(RESTYLED, n, 10 * seed + 9, device), seed))


# ---- the methods ----------------------------------------------------------------------------


def prompt_to_prompt(g: Given, tau: float) -> Tensor:
    control = p2p.Control(cross_attention=tau, self_attention=TAU_S, side=1.0)
    return g.shown(p2p.edit(g.sd, g.states, g.task.prompts, g.task.targets, g.path,
                            negative=g.task.prompts, w=GUIDED, control=control))


def plain(g: Given, w: float) -> Tensor:
    return g.sampled(g.task.targets, w)


def away(g: Given, w: float) -> Tensor:
    return g.sampled(g.task.targets, w, negative=g.task.prompts)


def drowned(g: Given, t0: float) -> Tensor:
    eps, schedule = g.sd.eps(g.task.targets, w=W), g.sd.schedule
    return g.shown(sdedit.edit(eps, schedule, g.z, round(t0 * schedule.T), g.path,
                               generator=g.generator()))


def generated(g: Given) -> Tensor:
    noise = g.sd.noise(len(g.task), g.generator(), tuple(g.task.truth.source.shape[2:]))
    return g.sampled(g.task.targets, W, noise=noise)


def plug_and_play(g: Given) -> Tensor:
    return g.shown(pnp.edit(g.sd, g.states, g.task.prompts, g.task.targets, g.path, w=W))


EDITORS: dict[str, Editor] = dict(zip(SWEEPS, (prompt_to_prompt, plain, away, drowned),
                                      strict=True))


def quick(device: str | torch.device) -> AbstractContextManager:
    """Networks in `fast_dtype`: for what is drawn, not for what is inverted."""
    dtype = fast_dtype(device)
    return torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None)


# ---- the table ------------------------------------------------------------------------------


def table(judge: nn.Module, given: Sequence[Given], editors: dict[str, Editor],
          seeds: int) -> Iterator[Row]:
    """All rows but Plug-and-Play's. The first of the editors is measured, the others beside it."""
    tasks, backs = [g.task for g in given], [g.back for g in given]
    sd = given[0].sd

    def measure(edit: Callable[[Given], Tensor]) -> Scored:
        with counted(sd) as calls, quick(sd.device):
            return scored(judge, tasks, lambda k: edit(given[k]), backs, calls)

    for name, edit in {"the perfect edit": lambda g: g.task.truth.image,
                       "the perfect edit through the autoencoder":
                           lambda g: g.shown(sd.encode(g.task.truth.image)),
                       "copy the source": lambda g: g.task.truth.source,
                       "reconstruct it": lambda g: g.back, "generate": generated}.items():
        yield from measure(edit).rows(name)
    found: dict[str, dict[float, Scored]] = {name: {} for name in editors}
    first, *others = editors
    for name, edit in editors.items():
        says, strengths = SWEEPS[name]
        for strength in strengths:
            some = found[name][strength] = measure(lambda g, s=strength, edit=edit: edit(g, s))
            only = () if (name, strength) == (first, TAU) else COMPARED
            yield from some.rows(f"{name}, {says} {strength:g}", only)
    ours = found[first][TAU]
    yield from successes(first, ours, seeds)
    like = {name: matched(ours.mean("tas"), found[name]) for name in others}
    again = found["plain DDIM"]
    for w in dict.fromkeys((W, like["plain DDIM"], GUIDED)):  # once where they are the same
        for column in ("moved", "outside"):
            yield beside(first, ours, "plain DDIM", w, again[w], column)
    for name, strength in like.items():
        yield beside(first, ours, name, strength, found[name][strength], "lpips_w_cf")


def successes(name: str, ours: Scored, seeds: int) -> Iterator[Row]:
    """Target success, of all edits and of each kind, beside the bars."""
    hits = ours.columns["tas"]
    which = ours.kinds // len(ATTRIBUTES)
    each = " ".join(f"{hits[which == k].mean():.2f}" for k in range(seeds))
    yield _success(f"{name}: all", hits, BARS["all"], f"; {each}")
    for i, attribute in enumerate(ATTRIBUTES):
        mine = hits[ours.kinds % len(ATTRIBUTES) == i]
        yield _success(f"{name}: {attribute}", mine, BARS["each"])


def _success(name: str, hits: Tensor, bar: float, more: str = "") -> Row:
    low, high = share(hits)
    return Row(f"{name}, target success ({low:.2f} to {high:.2f}{more}); peer: bar",
               hits.mean().item(), bar, "", "higher", len(hits))


def beside(name: str, ours: Scored, other: str, strength: float, theirs: Scored,
           column: str) -> Row:
    """A column of RATIOS, another method's at some strength beside it."""
    says, bar = RATIOS[column]
    low, high = ratio(ours.columns[column], theirs.columns[column])
    return Row(f"{name} (success {ours.mean('tas'):.2f}): {says}; peer: {other}, "
               f"{SWEEPS[other][0]} {strength:g} ({theirs.mean('tas'):.2f}); ratio {low:.2f} to "
               f"{high:.2f}, bar {bar:g}", ours.mean(column), theirs.mean(column), "", "lower",
               len(ours.kinds))


# ---- Plug-and-Play --------------------------------------------------------------------------


def layout(judge: nn.Module, g: Given,
           edit: Callable[[Given], Tensor] = plug_and_play) -> Iterator[Row]:
    """Overlap of outlines and what is read, under prompts that restyle; plain DDIM beside it."""
    ways = {"Plug-and-Play": edit, "plain DDIM": lambda g: plain(g, W), "generate": generated,
            "the perfect edit": lambda g: g.task.truth.image}
    for name, way in ways.items():
        bar = BARS["iou"] if way is edit else None
        with quick(g.sd.device):
            x = way(g)
        some = scored(judge, [g.task], lambda _, x=x: x, [g.back])
        name = f"{name}, new clothes and backdrop"
        yield Row(f"{name}: IoU of the outline" + "; peer: bar" * (way is edit),
                  overlap(judge, g.task, x).mean().item(), bar, "", "higher", len(g.task))
        yield from some.rows(name, COMPARED)


def overlap(judge: nn.Module, some: Task, x: Tensor) -> Tensor:
    """(b,) intersection over union of the outlines that the judge sees and the true ones."""
    said, true = judge.silhouette(x), truth.silhouette(some.p)
    return metrics.iou(said, true)
