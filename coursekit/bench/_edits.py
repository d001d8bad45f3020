"""Edits by words whose perfect result is known, and what a method made of them.

Five edits, fixed here for every method. Each changes one attribute of a held-out render, so the
counterfactual and the mask of what differs are known, and the two captions differ in its words:

    subject      another one, of which the caption tells all: people turn into people or animals,
                 animals into animals (else hair would have to be guessed)
    hair_colour  another, of people whose hair can be seen
    glasses      round ones or sunglasses for who wears none
    smile        from sad to happy or back, as far as captions call it so
    background   another of those that the shipped generator was trained on

and a sixth, RESTYLED, gives new clothes and a new backdrop: all that a shipped model can say about
looks that leaves every outline where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from coursekit import portraits
from coursekit.bench import Row
from coursekit.bench.judge import PIXELS, THRESHOLD
from coursekit.bench.samples import HELD_OUT
from coursekit.classroom import metrics
from coursekit.nets.control import tapped
from coursekit.nets.judge import Judge
from coursekit.nets.latent import Latent
from coursekit.portraits import CATEGORICAL, TRAINING, Counterfactual, Portraits, truth
from coursekit.portraits.attributes import HUMANS
from coursekit.recipes._changes import fitting

ATTRIBUTES = ("subject", "hair_colour", "glasses", "smile", "background")
RESTYLED = ("clothes", "background")
NEW = {"subject": CATEGORICAL["subject"], "hair_colour": CATEGORICAL["hair_colour"],
       "glasses": ("round", "sunglasses"), "background": TRAINING["background"],
       "clothes": CATEGORICAL["clothes"]}  # what an attribute may become
HAPPY, NAMED = 0.7, 0.4  # the middle of what captions call happy, and where that begins
TOLERANCE = {"smile": 0.25}  # of the range: read in -1.2 .. -0.2 is sad, in 0.2 .. 1.2 happy
DETAILS = 3  # things that both captions name besides the one that changes
DRAWN = 64  # portraits to choose from at a time


@dataclass(frozen=True)
class Task:
    """b edits of one kind.

    attributes        what changes
    p                 the portraits before; truth.record has them after
    prompts, targets  their captions, alike but for the attributes
    truth             renders before and after, (b, 3, 64, 64), and the mask of what differs
    """

    attributes: tuple[str, ...]
    p: Portraits
    prompts: list[str]
    targets: list[str]
    truth: Counterfactual

    def __len__(self) -> int:
        return len(self.prompts)

    def hits(self, judge: Judge, x: Tensor) -> Tensor:
        """(b,) bool: the judge reads what is wanted off pictures x (b, 3, 64, 64)."""
        wanted = {name: getattr(self.truth.record, name) for name in self.attributes}
        tolerance = max(TOLERANCE.get(name, 0.1) for name in self.attributes)
        return metrics.tas(judge, x, wanted, tolerance)


def task(attributes: Sequence[str], n: int, seed: int, device: str) -> Task:
    """n edits on portraits of the training distribution that no recipe has drawn.

    A change that would be seen in fewer than PIXELS pixels is not asked for.
    """
    generator = torch.Generator().manual_seed(HELD_OUT + seed)
    before, after, told = [], [], []
    while len(told) < n:
        p = portraits.sample(DRAWN, generator, **TRAINING)
        changes, suits = {}, torch.ones(DRAWN, dtype=torch.bool)
        for name in attributes:
            changes[name], possible = _changed(p, name, generator)
            suits = suits & possible
        record = fitting(p.replace(**changes))
        plans = portraits.caption(p, generator, DETAILS)
        texts = [[c.text for c in portraits.recaption(plans, q, *attributes)] for q in (p, record)]
        apart = truth.difference(portraits.render(p), portraits.render(record), THRESHOLD)
        suits = suits & (apart.sum((1, 2)) >= PIXELS)
        for i in suits.nonzero()[:, 0].tolist():
            if texts[0][i] != texts[1][i]:  # hair under a hat, say, has no words
                before.append(p[i])
                after.append(record[i])
                told.append((texts[0][i], texts[1][i]))
    p, record = (portraits.stack(*side[:n]).to(device) for side in (before, after))
    source, image = portraits.render(p), portraits.render(record)
    prompts, targets = (list(side) for side in zip(*told[:n], strict=True))
    return Task(tuple(attributes), p, prompts, targets,
                Counterfactual(record, source, image, truth.difference(source, image)))


def _changed(p: Portraits, name: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A new value for each portrait, and (b,) bool: there is such an edit of it."""
    if name == "smile":
        return -HAPPY * p.smile.sign(), p.smile.abs() > NAMED
    codes = torch.tensor([CATEGORICAL[name].index(value) for value in NEW[name]])
    new = codes[torch.randint(len(codes), (len(p),), generator=generator)]
    suits, human = new != getattr(p, name), p.where("subject", *HUMANS)
    if name == "subject":
        suits = suits & (human | (new >= len(HUMANS)))
    if name == "hair_colour":
        suits = suits & human
    if name == "glasses":
        suits = suits & p.where("glasses", "none")
    return new, suits


# ---- what came of them ----------------------------------------------------------------------

COLUMNS = {  # name -> what a row calls it, its unit, and which way is better
    "tas": ("target success", "", "higher"),
    "ntd": ("drift of all else, net of reconstruction", "", "lower"),
    "inside": ("change inside the mask", "", "higher"),
    "outside": ("change outside the mask", "", "lower"),
    "id_w": ("ID_w to the source", "", "higher"),
    "lpips_w_cf": ("LPIPS_w to the counterfactual", "", "lower"),
    "psnr_cf": ("PSNR to the counterfactual", "dB", "higher"),
}


@dataclass(frozen=True)
class Scored:
    """A method's pictures of all edits in numbers.

    columns  name -> (n,), one number an edit, on the CPU; the names of COLUMNS and of more
    kinds    (n,) which task an edit belongs to
    seconds, calls  a picture; calls are latents that the network is shown, so that a step under
                    guidance counts two, and a source drawn alongside as many again
    """

    columns: dict[str, Tensor]
    kinds: Tensor
    seconds: float
    calls: float

    def mean(self, column: str) -> float:
        return self.columns[column].float().nanmean().item()

    def rows(self, name: str, only: Sequence[str] = ()) -> Iterator[Row]:
        """A row a column, or for some `only`; then seconds and calls, unless nothing was called."""
        n = len(self.kinds)
        for column, (says, unit, better) in COLUMNS.items():
            if not only or column in only:
                yield Row(f"{name}: {says}", self.mean(column), None, unit, better, n)
        if self.calls and not only:
            yield Row(f"{name}: time a picture", self.seconds, None, "s", "lower", n)
            yield Row(f"{name}: latents through the network", self.calls, None, "", "lower", n)


def scored(judge: Judge, tasks: Sequence[Task], edit: Callable[[int], Tensor],
           backs: Sequence[Tensor], calls: Callable[[], int] = lambda: 0) -> Scored:
    """The columns of a method: edit(k) makes the pictures (b, 3, 64, 64) of task k.

    backs  what inverting and sampling makes of each task's sources with nothing changed; the drift
           is net of theirs, and a column "moved" has the change outside the mask from them.
    calls  how many latents the network has been shown so far, as `counted` gives it.
    """
    parts, seconds, before = [], 0.0, calls()
    for k, (some, back) in enumerate(zip(tasks, backs, strict=True)):
        begun = time.perf_counter()
        x = edit(k)
        x.sum().item()  # a GPU has finished
        seconds += time.perf_counter() - begun
        parts.append(_columns(judge, some, x, back))
    n = sum(map(len, tasks))
    columns = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    kinds = torch.cat([torch.full((len(some),), k) for k, some in enumerate(tasks)])
    return Scored(columns, kinds, seconds / n, (calls() - before) / n)


def _columns(judge: Judge, some: Task, x: Tensor, back: Tensor) -> dict[str, Tensor]:
    source, image, mask = some.truth.source, some.truth.image, some.truth.mask
    inside, outside = metrics.locality(source, x, mask)
    return {
        "tas": some.hits(judge, x).float(),
        "ntd": metrics.ntd(judge, source, x, back, some.attributes),
        "inside": inside, "outside": outside, "moved": metrics.locality(back, x, mask)[1],
        "id_w": metrics.id_w(judge, source, x),
        "lpips_w_cf": metrics.lpips_w(judge, image, x),
        "psnr_cf": metrics.psnr(image, x).clamp(max=metrics.PSNR_CAP),
    }


@contextmanager
def counted(sd: Latent) -> Iterator[Callable[[], int]]:
    """Gives a function that says how many latents the U-Net has been shown since."""
    shown: list[int] = []
    with tapped(sd.unet, lambda out: shown.append(len(out.sample))):
        yield lambda: sum(shown)


# ---- comparing ------------------------------------------------------------------------------


def matched(aim: float, found: Mapping[float, Scored]) -> float:
    """The strength whose success is nearest to `aim`; of several, the nearest to the truth."""
    def order(strength: float) -> tuple[float, float]:
        some = found[strength]
        return round(abs(some.mean("tas") - aim), 9), some.mean("lpips_w_cf")

    return min(found, key=order)


def share(hits: Tensor) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson (1927): hits (n,) of 0 and 1."""
    from scipy.stats import binomtest

    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def interval(d: Tensor) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t, d (n,) with n >= 2."""
    from scipy.stats import t

    half = t.ppf(0.975, len(d) - 1) * d.std().item() / len(d) ** 0.5
    mean = d.mean().item()
    return mean, mean - half, mean + half


def ratio(a: Tensor, b: Tensor, draws: int = 2000) -> tuple[float, float]:
    """The 95 % interval of mean(a) / mean(b), a and b (n,) of the same edits: edits drawn again.

    A percentile bootstrap that keeps pairs together; NaN pairs are left out.
    """
    whole = ~(a.isnan() | b.isnan())
    a, b = a[whole].double(), b[whole].double()
    again = torch.randint(len(a), (draws, len(a)), generator=torch.Generator().manual_seed(0))
    low, high = (a[again].mean(1) / b[again].mean(1)).quantile(a.new_tensor([0.025, 0.975]))
    return float(low), float(high)
