"""Numeric twins of lecture 04: what SDEdit's results are distributed like, bounds, masks, repeats.

Samples come from the package's `edit` with a perfect predictor; laws from sums over a fine grid.
"""

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2
from torch.distributions import Independent, Normal, kl_divergence

from coursekit.diffusion.schedule import Schedule
from coursekit.edits.sdedit import edit

from . import exact, mutated, sampled

equation = pytest.mark.equation
LINEAR, COSINE = Schedule.linear(), Schedule.cosine()
FINE = Schedule.linear(4000, 2.5e-5, 5e-3)  # as linear, in steps four times as small


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def points(value, n, *shape):
    return torch.full((n, 1, 1, *(shape or (1,))), value, dtype=torch.float64)


# ---- two laws of data with their perfect predictors ------------------------------------------

MU, S = 0.4, 0.5


def gaussian(schedule):
    def eps(x, t):
        level = schedule.level(t)
        return math.sqrt(1 - level) * (x - math.sqrt(level) * MU) / (level * S**2 + 1 - level)

    return eps


def gain(schedule, t):
    level = schedule.level(t)
    return level * S**2 / (level * S**2 + 1 - level)


CENTRES, WEIGHTS = torch.tensor([-0.8, 0.1, 0.9]).double(), torch.tensor([0.5, 0.2, 0.3]).double()
SPREAD = 0.15
GRID = torch.linspace(-2.2, 2.2, 1101, dtype=torch.float64)


def density(x):
    return (WEIGHTS * torch.exp(-(((x[:, None] - CENTRES) / SPREAD) ** 2) / 2)).sum(1)


def toy(schedule):
    def eps(x, t):
        level = schedule.level(t)
        var = level * SPREAD**2 + 1 - level
        gap = x.flatten(1) - math.sqrt(level) * CENTRES
        share = (WEIGHTS.log() - gap**2 / (2 * var)).softmax(1)
        return (math.sqrt(1 - level) * (share * gap).sum(1) / var).view_as(x)

    return eps


def draws(n, seed=0):
    which = torch.multinomial(WEIGHTS, n, replacement=True, generator=seeded(seed))
    return (CENTRES[which] + SPREAD * normal(n, seed=seed + 1)).view(n, 1, 1, 1)


def law(schedule, g, t0, signal=1.0, noise=1.0):
    """Probabilities on GRID of the result for guide g, by a sum over the noise."""
    a, b = math.sqrt(schedule.level(t0)), math.sqrt(1 - schedule.level(t0))
    z = torch.linspace(-5, 5, 601, dtype=torch.float64)
    x_t = a**signal * g + noise * b * z
    joint = density(GRID) * torch.exp(-((x_t[:, None] - a * GRID) ** 2) / (2 * b**2))
    return torch.softmax(-(z**2) / 2, 0) @ (joint / joint.sum(1, keepdim=True))


@equation("04.1")
@mutated(signal=2, noise=1.2)
def test_what_the_model_sees_first(signal=1, noise=1):
    first, t0, n = [], 300, 400_000

    def spy(x, t):
        first.append(x)
        return torch.zeros_like(x)

    edit(spy, LINEAR, points(-0.7, n), t0, [1000, 0], generator=seeded())
    level = LINEAR.level(t0)
    mean, var = -0.7 * math.sqrt(level) ** signal, noise**2 * (1 - level)
    x = first[0].flatten()
    return max(sampled(x, mean), sampled((x - x.mean()) ** 2, var))


@cache
def results(predictor, schedule, g, t0, n, hops, repeats=1):
    """Samples (n,) of the package's SDEdit; all cases of a twin read the same."""
    path = schedule.trailing(hops)
    return edit(predictor(schedule), schedule, points(g, n), t0, path, repeats=repeats,
                generator=seeded(1)).flatten()


def moments(x, mean, var):
    return max(sampled(x, mean), sampled((x - x.mean()) ** 2, var))


@equation("04.2")
@mutated(signal=(0, 2), noise=1.5)
def test_forget_then_guess(signal=1, noise=1):
    """The sum over the noise, against draws: noise the guide, then guess by Bayes' rule."""
    t0, g, n = 450, -1.5, 400_000
    level = COSINE.level(t0)
    y = g + math.sqrt((1 - level) / level) * normal(n, seed=1)  # x_t / sqrt(abar)
    width = SPREAD**2 + (1 - level) / level
    keep = SPREAD**2 / width
    share = WEIGHTS * torch.exp(-((y[:, None] - CENTRES) ** 2) / (2 * width))
    which = torch.multinomial(share, 1, generator=seeded(2))[:, 0]
    middle = CENTRES[which] + keep * (y - CENTRES[which])
    x = middle + SPREAD * math.sqrt(1 - keep) * normal(n, seed=3)
    weight = law(COSINE, g, t0, signal, noise)
    mean = (weight * GRID).sum()
    return moments(x, mean, (weight * (GRID - mean) ** 2).sum())


@equation("04.3")
@mutated(power=1, own=2)
def test_gain(power=2, own=1):
    t0, g = 4 * 130, -1.1
    k = gain(FINE, t0) ** own
    x = results(gaussian, FINE, g, t0, 200_000, 4000)
    return moments(x, MU + k * (g - MU), S**2 * (1 - k**power))


@equation("04.4")
@mutated(factor=1)
def test_a_round_trip_errs_twice(factor=2):
    t0, x0 = 500, draws(20_000)
    x_t = COSINE.noise(x0, normal(*x0.shape, seed=5), t0)
    unseen = (COSINE.denoise(x_t, toy(COSINE)(x_t, t0), t0) - x0).square().mean()
    out = edit(toy(COSINE), COSINE, x0, t0, COSINE.trailing(200), generator=seeded(6))
    ratio = float((out - x0).square().mean() / (factor * unseen))
    return abs(ratio - 1) / 0.06  # 4 standard errors of the ratio and the error of 200 hops


@equation("04.5")
@mutated(half=1, power=0)
def test_noise_covers_a_difference(half=0.5, power=1):
    t, g, x0 = 600, normal(20), normal(20, seed=1)
    level = LINEAR.level(t)
    pair = (Independent(Normal(math.sqrt(level) * x, math.sqrt(1 - level)), 1) for x in (g, x0))
    snr = level / (1 - level) ** power
    return exact(half * snr * (g - x0).square().sum(), kl_divergence(*pair))


@equation("04.6")
@mutated(sign=-1, half=0.02)
def test_processing_hides_no_less(sign=1, half=0.5):
    """The residual is the largest excess over the bound, in units of the bound."""
    excess = []
    for t0 in (100, 300, 500, 700, 900):
        for g, x0 in ((0.5, 0.9), (0.5, 0.1), (-0.3, -0.8)):
            p, q = (law(COSINE, x, t0) + 1e-300 for x in (g, x0))
            bound = half * COSINE.level(t0) / (1 - COSINE.level(t0)) * (g - x0) ** 2
            excess.append(float(sign * (p * (p / q).log()).sum() / bound - sign))
    return max(0.0, max(excess)) / 1e-2


# ---- realism ---------------------------------------------------------------------------------


@equation("04.7")
@mutated(cross=-1, power=2)
def test_kid_of_two_gaussians(cross=-2, power=3):
    """Moments of (ab + 1)^3 in closed form, against the estimate over distinct pairs."""

    def powers(mean, var):
        return 1.0, mean, mean**2 + var, mean**3 + 3 * mean * var

    def expected(p, q):
        return sum(c * a * b for c, a, b in zip((1, 3, 3, 1), powers(*p), powers(*q), strict=True))

    laws, n = ((0.9, 0.2), (0.4, 0.3)), 1600  # 1600 estimates from 40 features each
    one, two = laws
    truth = expected(one, one) + expected(two, two) - 2 * expected(one, two)
    a, b = (mean + math.sqrt(var) * normal(n, 40, seed=k) for k, (mean, var) in enumerate(laws))
    aa, bb, ab = ((x[:, :, None] * y[:, None] + 1) ** power for x, y in ((a, a), (b, b), (a, b)))
    sums = (m.sum((1, 2)) - m.diagonal(dim1=1, dim2=2).sum(1) for m in (aa, bb))
    return sampled(sum(sums) / (40 * 39) + cross * ab.mean((1, 2)), truth)


# ---- the bound -------------------------------------------------------------------------------


def sigma2(schedule, t):
    return (1 - schedule.level(t)) / schedule.level(t)


@equation("04.8")
@mutated(power=2, swap=True)
def test_signal_of_unit_size(power=1, swap=False):
    x0, eps, t = normal(5), normal(5, seed=1), 420
    level = LINEAR.level(t)
    var = level / (1 - level) if swap else (1 - level) / level
    said = x0 + var ** (power / 2) * eps
    return exact(said, LINEAR.noise(x0, eps, t) / math.sqrt(level))


@equation("04.9")
@mutated(drift=-1, start=0)
def test_three_parts_of_the_way(drift=1, start=1):
    """What start and drift leave of the result is white and has the variance of the way back."""
    t0, g, n, seen = 400, -1.2, 20_000, []
    predict = gaussian(LINEAR)

    def spy(x, t):
        seen.append((t, x, predict(x, t)))
        return seen[-1][2]

    out = edit(spy, LINEAR, points(g, n), t0, LINEAR.trailing(1000), generator=seeded(3))
    z = torch.randn(out.shape, generator=seeded(3), dtype=torch.float64)  # drawn first
    moved = torch.zeros_like(out)
    for (t, _, e), s in zip(seen, [*(t for t, *_ in seen[1:]), 0], strict=True):
        score = -e / math.sqrt(sigma2(LINEAR, t))
        moved += (sigma2(LINEAR, t) - sigma2(LINEAR, s)) * score
    rest = (out - g - start * math.sqrt(sigma2(LINEAR, t0)) * z - drift * moved).flatten()
    off = float(rest.var()) / sigma2(LINEAR, t0) - 1, float(rest.mean())
    tied = float(torch.corrcoef(torch.stack([rest, z.flatten()]))[0, 1])
    return max(*(abs(v) for v in off), abs(tied)) / 0.04  # 5 standard errors, and 400 hops


@equation("04.10")
@mutated(root=1, linear=0.2)
def test_length_of_a_gaussian(root=2, linear=2):
    """The residual is the largest excess of the true tail over e^-u, relative."""
    excess = []
    for d in (1, 3, 30, 100, 12_288):
        for u in (0.1, 1.0, 3.0, 10.0):
            tail = chi2.sf(d + root * math.sqrt(d * u) + linear * u, d)
            excess.append(tail / math.exp(-u) - 1)
    return max(0.0, max(excess)) / 1e-9


@cache
def pushed(length, d):
    """Squared distances to the guide, in sigma^2, where the score pushes by `length` sigma."""
    t0 = 500

    def eps(x, t):
        size = length / math.sqrt(d * sigma2(LINEAR, t0))
        return -math.sqrt(sigma2(LINEAR, t)) * torch.full_like(x, size)

    out = edit(eps, LINEAR, points(0.0, 1000, d), t0, LINEAR.trailing(200), generator=seeded(4))
    return out.flatten(1).square().sum(1) / sigma2(LINEAR, t0)


@equation("04.11")
@mutated(both=1, push=0)
def test_distance_to_the_guide(both=2, push=1):
    """Scores of constant length C: a weak one tests the noise, a strong one the push."""
    d, delta = 64, 0.05
    u, broken = math.log(1 / delta), []
    for length in (0.5, 30.0):  # sqrt(C) sigma(t0)
        noise = both * (d + 2 * math.sqrt(d * u) + 2 * u)
        bound = (push * length + math.sqrt(noise)) ** 2
        broken.append(float((pushed(length, d) > bound).double().mean()))
    return max(broken) / delta


# ---- ends, masks, repeats --------------------------------------------------------------------


@equation("04.12")
@mutated(root=1, spread=2)
def test_without_noise_on_the_way(root=0.5, spread=1):
    t0, g, schedule = 300, points(-0.8, 50), Schedule.linear()

    def run(hops):
        return edit(gaussian(schedule), schedule, g, t0, schedule.trailing(hops), eta=0.0,
                    generator=seeded(5))

    z = torch.randn(g.shape, generator=seeded(5), dtype=torch.float64)
    level = schedule.level(t0)
    deviation = math.sqrt(level) * (g - MU) + math.sqrt(1 - level) * z
    said = MU + S**spread * deviation / (level * S**2 + 1 - level) ** root
    found = 2 * run(1000) - run(500)  # an error of c / hops cancels
    return exact(said, found, 2e-3)


@equation("04.13")
@mutated(late=True, mask=False)
def test_the_kept_part_is_at_the_same_level(late=False, mask=True):
    seen, g = {}, normal(2, 3, 4, 4)

    def spy(x, t):
        seen[t] = x.clone()
        return torch.tanh(x.roll(1, -1))

    change = torch.zeros(2, 4, 4, dtype=torch.bool)
    change[:, 1:3] = True
    path = LINEAR.trailing(20)
    out = edit(spy, LINEAR, g, 700, path, mask=change, generator=seeded(6))
    z = torch.randn(g.shape, generator=seeded(6), dtype=torch.float64)
    off, kept = [], (~change if mask else change)[:, None].expand_as(g)
    hops = [t for t in path if t <= 700]
    for t, s in pairwise(hops):
        level = LINEAR.level(t if late else s)
        wanted = math.sqrt(level) * g + math.sqrt(1 - level) * z
        off.append(exact((seen[s] if s else out)[kept], wanted[kept]))
    return max(off)


@equation("04.14")
@mutated(power=1, twice=1)
def test_repeats(power=3, twice=2):
    """Three sweeps with exact draws, conditioned by the covariance of (x_0, x_0 + sigma z)."""
    var, x = sigma2(LINEAR, 80), torch.full((200_000,), -1.1, dtype=torch.float64)
    joint = torch.tensor([[S**2, S**2], [S**2, S**2 + var]], dtype=torch.float64)
    slope = joint[0, 1] / joint[1, 1]
    left = torch.linalg.inv(torch.linalg.inv(joint)[:1, :1]).sqrt()[0, 0]  # sd given the other
    for sweep in range(3):
        drowned = x + math.sqrt(var) * normal(len(x), seed=2 * sweep)
        x = MU + slope * (drowned - MU) + left * normal(len(x), seed=2 * sweep + 1)
    k = gain(LINEAR, 80)
    return moments(x, MU + k**power * (-1.1 - MU), S**2 * (1 - k ** (3 * twice)))


def test_repeats_of_the_package():
    t0, g, k = 80, -1.1, gain(LINEAR, 80)
    x = results(gaussian, LINEAR, g, t0, 40_000, 1000, repeats=3)
    assert moments(x, MU + k**3 * (g - MU), S**2 * (1 - k**6)) < 1.5
