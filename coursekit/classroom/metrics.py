"""What an edit did, in numbers of this course's own world, always beside three trivial rows.

    tas       target attribute success: does the judge read the wanted value?
    ntd       non-target drift: how far everything else moved, net of what reconstruction moves
    kept      share of the attributes that a reconstruction keeps
    locality  mean change inside and outside the true mask
    iou       overlap of two masks
    id_w      likeness of the identity            same_w  is it one person or are they two?
    lpips_w   perceptual distance                 psnr, ssim  pixel by pixel
    fid_w     Frechet distance between two sets

The suffix _w says that the features are those of this world's judge: the numbers are no LPIPS, FID
or ArcFace similarity and cannot be compared with those of a paper. Pictures are (b, 3, 64, 64) in
[-1, 1]; a metric gives one number a picture, (b,), unless it says otherwise. `judge` is the network
of `pretrained.load("judge")`. Nothing here carries gradients.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coursekit.nets.judge import READ, Judge, Reading, check_pictures
from coursekit.portraits.attributes import (
    CATEGORICAL, CONTINUOUS, IDENTITY, check_range, check_value,
)

BATCH = 128  # pictures that the judge sees at once
PSNR_CAP = 100.0  # dB: one exact copy must not make a mean infinite
Wanted = Mapping[str, "str | float | Tensor"]


# ---- pixels ---------------------------------------------------------------------------------


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(4 / MSE) as the range is 2; inf where a = b."""
    _check_pair("a", a, "b", b)
    return 10 * torch.log10(4 / (a.double() - b.double()).square().flatten(1).mean(1)).float()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity in [-1, 1] (Wang et al. 2004): Gaussian window 11, sigma 1.5."""
    _check_pair("a", a, "b", b)
    line = torch.arange(-5.0, 6.0, dtype=torch.float64, device=a.device)
    line = torch.exp(-(line**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    window = window.expand(3, 1, 11, 11)

    def local(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=3)

    x, y = a.double(), b.double()
    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # eq. 13, L = 2
    value = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return value.flatten(1).mean(1).float()


def locality(source: Tensor, edited: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute change inside and outside mask (b, h, w) bool, each in [0, 2].

    NaN where a portrait's mask leaves no such pixel.
    """
    _check_pair("source", source, "edited", edited)
    if mask.dtype != torch.bool or mask.shape != source[:, 0].shape:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}: accepted is bool "
                         f"{tuple(source[:, 0].shape)}")
    change = (edited - source).abs().mean(1)  # b h w
    inside, outside = ((change * m).sum((1, 2)) / m.sum((1, 2)) for m in (mask, ~mask))
    return inside, outside


def iou(a: Tensor, b: Tensor) -> Tensor:
    """(b,) intersection over union of masks (b, h, w) bool; two empty ones agree."""
    joint, either = (m.flatten(1).sum(1) for m in (a & b, a | b))
    return torch.where(either > 0, joint / either.clamp(min=1), 1.0)


# ---- what the judge reads -------------------------------------------------------------------


@torch.no_grad()
def readings(judge: Judge, x: Tensor) -> Reading:
    """The judge's readings of any number of pictures."""
    parts = [judge(some) for some in _chunks(judge, x)]
    logits = {name: torch.cat([p.logits[name] for p in parts]) for name in parts[0].logits}
    mean, log_var = (torch.cat([getattr(p, k) for p in parts]) for k in ("mean", "log_var"))
    return Reading(logits, mean, log_var)


def tas(judge: Judge, edited: Tensor, wanted: Wanted, tolerance: float = 0.1) -> Tensor:
    """Target attribute success, (b,) bool: every wanted attribute is read as wanted.

    Args:
        wanted: attribute = value as in `Portraits.replace`: a name, a number, or (b,) of them.
        tolerance: how far a continuous attribute may be off, as a share of its range.

    Raises ValueError for an attribute that the judge does not read and for unknown values.
    """
    if not 0 < tolerance <= 1:
        raise ValueError(f"tolerance={tolerance}: accepted is 0 < tolerance <= 1")
    targets = {name: _target(name, value, len(edited)) for name, value in _some(wanted).items()}
    reading = readings(judge, edited)
    hit = torch.ones(len(edited), dtype=torch.bool, device=edited.device)
    for name, target in targets.items():
        target = target.to(edited.device)
        if name in CATEGORICAL:
            hit &= reading.index(name) == target
        else:
            low, high = CONTINUOUS[name]
            hit &= (reading.value(name) - target).abs() <= tolerance * (high - low)
    return hit


def drift(judge: Judge, a: Tensor, b: Tensor, except_for: Iterable[str] = ()) -> Tensor:
    """How far the readings of a and b lie apart, mean over the attributes, in [0, 1].

    A categorical attribute counts the total variation between its two distributions, a continuous
    one its change as a share of its range.
    """
    _check_pair("a", a, "b", b)
    leave = {_readable(name) for name in except_for}
    one, two = readings(judge, a), readings(judge, b)
    terms = [(one.logits[n].softmax(1) - two.logits[n].softmax(1)).abs().sum(1) / 2
             for n in CATEGORICAL if n not in leave]
    terms += [(one.value(n) - two.value(n)).abs() / (CONTINUOUS[n][1] - CONTINUOUS[n][0])
              for n in READ if n not in leave]
    return torch.stack(terms).mean(0)


def kept(judge: Judge, source: Tensor, reconstructed: Tensor, sure: float = 0.9) -> Tensor:
    """Share in [0, 1] of the categorical attributes whose reading stays, (b,).

    Only those count that the judge reads off the source with a probability of at least `sure`: the
    eyes behind sunglasses can only be guessed, before and after. NaN where there are none.
    """
    _check_pair("source", source, "reconstructed", reconstructed)
    if not 0 <= sure < 1:
        raise ValueError(f"sure={sure}: accepted is 0 <= sure < 1")
    one, two = readings(judge, source), readings(judge, reconstructed)
    known = torch.stack([one.logits[n].softmax(1).amax(1) >= sure for n in CATEGORICAL])
    same = torch.stack([one.index(n) == two.index(n) for n in CATEGORICAL])
    return (known & same).sum(0) / known.sum(0)


def ntd(judge: Judge, source: Tensor, edited: Tensor, reconstructed: Tensor,
        wanted: Iterable[str]) -> Tensor:
    """Non-target drift net of reconstruction, in [-1, 1]: 0 is no more than inversion costs.

    drift(source, edited) - drift(source, reconstructed) over all attributes but `wanted`; a copy of
    the source has less than 0. With `source` as reconstructed it is the plain drift.
    """
    wanted = list(wanted)
    gross = drift(judge, source, edited, wanted)
    return gross - drift(judge, source, reconstructed, wanted)


def id_w(judge: Judge, a: Tensor, b: Tensor) -> Tensor:
    """Likeness of two identities in [-1, 1]: the cosine of the judge's identity vectors.

    It says how alike two pictures of one person are; whether it is one person, `same_w` tells
    better.
    """
    _check_pair("a", a, "b", b)
    return F.cosine_similarity(readings(judge, a).identity, readings(judge, b).identity)


def same_w(judge: Judge, a: Tensor, b: Tensor) -> Tensor:
    """Is it one person? Log-likelihood ratio in nats, one identity against two; (b,), 0 undecided.

    As in Prince and Elder (2007): with the judge's N(m, v) of each of the ten identity parameters
    and their prior N(0, 1), the sum of log of the integral of N(m_a, v_a) N(m_b, v_b) / N(0, 1).
    What the judge cannot see in one of them (m = 0, v = 1) says nothing, what it sees sharply in
    both says much. Both are taken to show the same subject.
    """
    _check_pair("a", a, "b", b)
    one, two = (_precisions(readings(judge, some)) for some in (a, b))
    precision = one[1] + two[1] - 1
    square = (one[0] + two[0]).square() / precision - one[0].square() / one[1] - (
        two[0].square() / two[1])
    return (square + (one[1] * two[1] / precision).log()).sum(1) / 2


def _precisions(reading: Reading) -> tuple[Tensor, Tensor]:
    """m / v and 1 / v of the identity parameters, each (b, 10); v at most the prior's 1."""
    precision = (-reading.log_var[:, : len(IDENTITY)]).exp().clamp(min=1)
    return reading.identity * precision, precision


@torch.no_grad()
def lpips_w(judge: Judge, a: Tensor, b: Tensor) -> Tensor:
    """Perceptual distance in [0, 8] after Zhang et al. (2018), eq. 1 with all weights 1.

    The four levels' features, normalised over channels; squared distance, mean over places, summed
    over levels.
    """
    _check_pair("a", a, "b", b)
    found = []
    for x, y in zip(_chunks(judge, a), _chunks(judge, b), strict=True):
        levels = zip(judge.features(x), judge.features(y), strict=True)
        found.append(sum((F.normalize(f) - F.normalize(g)).square().sum(1).mean((1, 2))
                         for f, g in levels))
    return torch.cat(found)


# ---- sets of pictures -----------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """n pictures' features: mean (d,) and covariance (d, d), float64."""

    n: int
    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Frechet:
    """FID_w with what it takes to read it: N, and the value between two sets of renders."""

    value: float
    n: int
    floor: float

    def __str__(self) -> str:
        return f"FID_w {self.value:.3f} (N = {self.n}, floor {self.floor:.3f})"


@torch.no_grad()
def statistics(judge: Judge, pictures: Tensor | Iterable[Tensor]) -> Statistics:
    """Mean and covariance of the pooled features of a set, given whole or in batches."""
    batches = [pictures] if isinstance(pictures, Tensor) else pictures
    h = torch.cat([judge.pooled(some).double() for batch in batches
                   for some in _chunks(judge, batch)])
    if len(h) < 2:
        raise ValueError(f"pictures: {len(h)} came; accepted are at least 2")
    return Statistics(len(h), h.mean(0), torch.cov(h.T))


def frechet(a: Statistics, b: Statistics) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) (Heusel et al. 2017, eq. 6), in float64.

    C1 C2 has the eigenvalues of the symmetric R C2 R with R = C1^1/2, so two symmetric
    eigenproblems replace the square root of a general matrix, which loses digits when C1 is
    singular (fewer pictures than features).
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    trace = a.covariance.trace() + b.covariance.trace() - 2 * cross
    return float((a.mean - b.mean).square().sum() + trace)


def fid_w(judge: Judge, pictures: Tensor | Iterable[Tensor], reference: Tensor | Iterable[Tensor],
          again: Tensor | Iterable[Tensor]) -> Frechet:
    """Frechet distance of a set to the reference set, with its floor.

    `again` is a second draw from the reference's distribution: its distance to the reference is
    what N pictures from the right distribution get. All three have the same N, as the bias depends
    on it.
    """
    sets = [statistics(judge, s) for s in (pictures, reference, again)]
    if len({s.n for s in sets}) != 1:
        raise ValueError("pictures, reference, again have "
                         f"{', '.join(str(s.n) for s in sets)} pictures: accepted is one N")
    return Frechet(frechet(sets[0], sets[1]), sets[0].n, frechet(sets[2], sets[1]))


@torch.no_grad()
def nearest(pictures: Tensor, training: Iterable[Tensor], k: int = 1) -> tuple[Tensor, Tensor]:
    """The k training pictures nearest to each picture: RMSE (n, k) in [0, 2], index (n, k) int64.

    training comes in batches (m, 3, 64, 64) in [-1, 1], so that it never has to fit in memory.
    """
    check_pictures("pictures", pictures)
    if k < 1:
        raise ValueError(f"k={k}: accepted is a whole number >= 1")
    flat, first = pictures.flatten(1), 0
    best = torch.full((len(flat), 0), 0.0, device=flat.device)
    where = torch.zeros(len(flat), 0, dtype=torch.long, device=flat.device)
    for batch in training:
        check_pictures("training", batch)
        # Not by |a|^2 + |b|^2 - 2ab: a copy would come out at a distance of 1e-3, not 0.
        each = torch.cdist(flat, batch.flatten(1).to(flat),
                           compute_mode="donot_use_mm_for_euclid_dist")
        rmse = each / math.sqrt(flat.shape[1])
        index = torch.arange(first, first + len(batch), device=flat.device).expand(len(flat), -1)
        first += len(batch)
        both, places = torch.cat([best, rmse], 1), torch.cat([where, index], 1)
        best, order = both.topk(min(k, both.shape[1]), dim=1, largest=False)
        where = places.gather(1, order)
    if first < k:
        raise ValueError(f"training has {first} pictures: accepted are at least k={k}")
    return best, where


# ---- the table ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edited:
    """What a method made: pictures (b, 3, 64, 64), and its network calls where it counted them."""

    pictures: Tensor
    calls: int | None = None


@dataclass(frozen=True)
class Scores:
    """One row: means over n pictures, None where a column does not apply.

    tas 0..1, up; ntd, down; inside, outside [0, 2] by the true mask; id_w to the source, up;
    lpips_w to the source; lpips_w_cf, psnr_cf to the counterfactual; seconds a picture; calls.
    """

    name: str
    n: int
    tas: float
    ntd: float
    id_w: float
    lpips_w: float
    inside: float | None = None
    outside: float | None = None
    lpips_w_cf: float | None = None
    psnr_cf: float | None = None
    seconds: float | None = None
    calls: int | None = None

    def as_dict(self) -> dict[str, str | float | int | None]:
        return asdict(self)


Result = Tensor | Edited | Callable[[], "Tensor | Edited"]


def report(judge: Judge, source: Tensor, wanted: Wanted, edits: Mapping[str, Result], *,
           reconstruction: Result, generated: Result, counterfactual: Tensor | None = None,
           mask: Tensor | None = None, tolerance: float = 0.1) -> list[Scores]:
    """The table of one edit, a row a method, with the three rows that any method must beat.

    Args:
        source: the pictures before. wanted, tolerance: as in `tas`.
        edits: method -> pictures, `Edited`, or a function of no arguments that makes one and is
            timed.
        reconstruction: the source after inversion and sampling with nothing changed.
        generated: pictures made from scratch to show the wanted value.
        counterfactual, mask: the perfect edit and where it differs, for sources that are renders.

    Returns the rows copy, reconstruct, generate, then those of `edits` in their order. Copy wins
    every column but tas: compare methods at matched tas.
    """
    check_pictures("source", source)
    taken = {"copy", "reconstruct", "generate"} & edits.keys()
    if taken:
        raise ValueError(f"edits: the name {taken.pop()!r} is taken by a trivial row")
    made = {"copy": (Edited(source), None), "reconstruct": _made(reconstruction),
            "generate": _made(generated)}
    base = made["reconstruct"][0].pictures
    _check_pair("source", source, "reconstruction", base)
    rows = []
    for name, result in [*made.items(), *((k, _made(v)) for k, v in edits.items())]:
        edited, seconds = result
        x = edited.pictures
        _check_pair("source", source, name, x)
        scores = {"tas": tas(judge, x, wanted, tolerance),
                  "ntd": ntd(judge, source, x, base, wanted),
                  "id_w": id_w(judge, source, x), "lpips_w": lpips_w(judge, source, x)}
        if mask is not None:
            scores["inside"], scores["outside"] = locality(source, x, mask)
        if counterfactual is not None:
            scores["lpips_w_cf"] = lpips_w(judge, counterfactual, x)
            scores["psnr_cf"] = psnr(counterfactual, x).clamp(max=PSNR_CAP)
        means = {k: float(v.float().nanmean()) for k, v in scores.items()}
        rows.append(Scores(name, len(source), **means, calls=edited.calls,
                           seconds=None if seconds is None else seconds / len(source)))
    return rows


def _made(result: Result) -> tuple[Edited, float | None]:
    seconds = None
    if callable(result):
        begun = time.perf_counter()
        result = result()
        seconds = time.perf_counter() - begun
    return (result if isinstance(result, Edited) else Edited(result)), seconds


# ---- refusals -------------------------------------------------------------------------------


def _check_pair(one: str, a: Tensor, two: str, b: Tensor) -> None:
    check_pictures(one, a)
    check_pictures(two, b)
    if a.shape != b.shape:
        raise ValueError(f"{one} and {two} have shapes {tuple(a.shape)} and {tuple(b.shape)}: "
                         "accepted is one shape")


def _chunks(judge: Judge, x: Tensor) -> Iterable[Tensor]:
    if not isinstance(judge, Judge):
        raise TypeError(f"judge is a {type(judge).__name__}: accepted is "
                        "pretrained.load('judge').net")
    if judge.training:
        raise ValueError("judge is in training mode: call judge.eval()")
    check_pictures("x", x)
    return x.split(BATCH)


def _readable(name: str) -> str:
    if name not in CATEGORICAL and name not in READ:
        raise ValueError(f"attribute {name!r}: accepted are {', '.join((*CATEGORICAL, *READ))}")
    return name


def _some(wanted: Wanted) -> Wanted:
    if not wanted:
        raise ValueError("wanted is empty: name at least one attribute, e.g. hat='beanie'")
    return wanted


def _target(name: str, value: str | float | Tensor, n: int) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.full((n,), check_value(_readable(name), value))
    if value.shape != (n,):
        raise ValueError(f"wanted[{name!r}] has shape {tuple(value.shape)}: accepted is ({n},)")
    check_range(_readable(name), value)
    return value
