"""Numeric twins of lecture 08: guidance against inversion, in two Gaussians and on three clouds."""

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from toys import TRIANGLE, Mixture

from coursekit.diffusion import guided as ways
from coursekit.diffusion.inversion import fixed_point, replay
from coursekit.diffusion.predict import guided
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.diffusion.schedule import Schedule

from . import exact, mutated

equation = pytest.mark.equation
LINEAR = Schedule.linear()
NONE = TRIANGLE.eps(LINEAR)
SOURCE, TARGET = (Mixture(TRIANGLE.means[k:k + 1].tolist(), TRIANGLE.std).eps(LINEAR)
                  for k in (0, 1))
MOVES = [(1000, 980), (500, 480), (120, 20), (7, 6)]  # (t, s)
D, S = 0.25, 0.5  # variance of the shift's Gaussians, deviation of the squeeze's class
MU, NU = 0.8, -0.5
HIGH, LOW = math.sqrt(1 / LINEAR.level(1000) - 1), 1e-4  # sigma-bar where paths begin, and end


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def points(n=40):
    return TRIANGLE.means[0] + TRIANGLE.std * normal(n, 2)


def worst(residuals):
    return max(residuals)


def line(t, s):
    """a, b of (06.1), from where a move takes zero and one."""
    zero = torch.zeros(1, dtype=torch.float64)
    b = float(LINEAR.noise(LINEAR.denoise(zero, zero + 1, t), zero + 1, s))
    return float(LINEAR.noise(LINEAR.denoise(zero + 1, zero, t), zero, s)), b


@cache
def pivot(S=20):
    return list(invert(SOURCE, LINEAR, points(), LINEAR.trailing(S)))


def hops(S=20):
    """(state above, state below) of the pivot, noisy to clean."""
    return list(zip(pivot(S)[:0:-1], pivot(S)[-2::-1], strict=True))


def shifted(null):
    """The predictor of all clouds, moved by an embedding (n, 2)."""
    return lambda x, t: NONE(x - math.sqrt(LINEAR.level(t)) * null, t)


def gaussian(mean, var):
    """-sqrt(1 - abar) times the score of N(mean, var) at level t, by autograd of its log."""
    def eps(x, t):
        level = LINEAR.level(t)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_p = -(x - math.sqrt(level) * mean) ** 2 / (2 * (level * var + 1 - level))
            (score,) = torch.autograd.grad(log_p.sum(), x)
        return -math.sqrt(1 - level) * score
    return eps


def barred(parts):
    """sigma -> the noise of a Gaussian mixture's score at barred points, in closed levels."""
    def eps(bar, sigma):
        level = 1 / (1 + sigma**2)
        return parts(math.sqrt(level) * bar, level)
    return eps


def cloud(which):
    means = TRIANGLE.means[which]

    def eps(x, level):
        var = level * TRIANGLE.std**2 + 1 - level
        far = (x[:, None] - math.sqrt(level) * means).square().sum(-1)
        mean = (-far / (2 * var)).softmax(1) @ means
        return math.sqrt(1 - level) * (x - math.sqrt(level) * mean) / var

    return eps


def bell(mean, var):
    return lambda x, level: math.sqrt(1 - level) * (x - math.sqrt(level) * mean) / (
        level * var + 1 - level)


def follow(slope, bar, begin, end, n=400):
    """Runge-Kutta for d bar / d sigma = slope(bar, sigma), in steps even in log sigma."""
    at = torch.linspace(math.log(begin), math.log(end), n + 1, dtype=torch.float64).tolist()
    for a, b in pairwise(at):
        h, mid = b - a, (a + b) / 2

        def rate(x, u):
            return math.exp(u) * slope(x, math.exp(u))

        k1 = rate(bar, a)
        k2 = rate(bar + h / 2 * k1, mid)
        k3 = rate(bar + h / 2 * k2, mid)
        bar = bar + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(bar + h * k3, b))
    return bar


def under(none, cond, w):
    return lambda bar, sigma: none(bar, sigma) + w * (cond(bar, sigma) - none(bar, sigma))


# ---- what guidance does to a hop, and to the way -----------------------------------------------


@equation("08.1")
@mutated(one=0, sign=1)
def test_guidance_is_the_condition_and_something_on_top(one=1, sign=-1):
    x, off = normal(6, 2), []
    for t, w in ((200, 3.0), (700, 7.5)):
        delta = SOURCE(x, t) + sign * NONE(x, t)
        off.append(exact((w - one) * delta, guided(NONE, SOURCE, w)(x, t) - SOURCE(x, t)))
    return worst(off)


@equation("08.2")
@mutated(one=0, sign=-1)
def test_a_guided_hop_is_the_plain_one_and_a_push(one=1, sign=1):
    """One hop of the package's sampler under w, and one at w = 1."""
    x, w, off = normal(6, 2), 7.5, []
    for t, s in MOVES:
        plain, pushed = (last(ddim(guided(NONE, SOURCE, v), LINEAR, x, [t, s])).x for v in (1, w))
        push = (w - one) * line(t, s)[1] * (SOURCE(x, t) - NONE(x, t))
        off.append(exact(plain + sign * push, pushed))
    return worst(off)


@equation("08.3")
@mutated(one=0, force=-1, back=0.9)
def test_the_deviation_from_the_pivot_has_an_equation_of_its_own(one=1, force=1, back=1):
    """Pivot and deviation side by side, against the guided ODE alone."""
    none, cond, w = barred(cloud([0, 1, 2])), barred(cloud([0])), 3.0
    top = follow(cond, points(), LOW, 50.0)

    def both(state, sigma):
        at, e = state.chunk(2)
        change = cond(at + e, sigma) - back * cond(at, sigma)
        delta = cond(at + e, sigma) - none(at + e, sigma)
        return torch.cat([cond(at, sigma), change + force * (w - one) * delta])

    at, e = follow(both, torch.cat([top, 0 * top]), 50.0, LOW).chunk(2)
    return exact(at + e, follow(under(none, cond, w), top, 50.0, LOW), 1e-6)


@equation("08.4")
@mutated(sign=1, power=1)
def test_the_condition_of_a_shift_is_the_same_everywhere(sign=-1, power=2):
    x, off = normal(6), []
    for t in (50, 400, 900):
        sigma = math.sqrt(1 / LINEAR.level(t) - 1)
        delta = gaussian(MU, D)(x, t) - gaussian(0.0, D)(x, t)
        off.append(exact(sign * sigma * MU / (D + sigma**power) + 0 * x, delta))
    return worst(off)


@equation("08.5")
@mutated(one=0, sign=1, power=1)
def test_where_the_shift_ends(one=1, sign=-1, power=0.5):
    """Both ODEs in steps, from a top that is not so high that the root would not count."""
    x, off = normal(5), []
    none, cond = barred(bell(0.0, D)), barred(bell(MU, D))
    for w, top in ((3.0, 2.0), (7.5, 40.0)):
        up = follow(cond, x, LOW, top)
        back = follow(under(none, cond, w), up, top, LOW)
        printed = (w - one) * MU * (1 + sign * (D / (D + top**2)) ** power)
        off.append(exact(printed + 0 * x, back - x, 1e-6))
    return worst(off)


@cache
def slopes(t, s=S):
    """k_c and delta of the squeeze, read off scores by autograd."""
    one = torch.ones(1, dtype=torch.float64)
    k_c, k_0 = (float(gaussian(0.0, var)(one, t)) for var in (s**2, 1.0))
    return k_c, k_c - k_0


@equation("08.6")
@mutated(one=0, sign=1, power=0)
def test_a_hop_up_and_down_of_the_squeeze(one=1, sign=-1, power=1):
    """Against the package's hop up at w = 1 and down under w; r_1 is (06.9)."""
    x, w, off = normal(5, 1), 3.0, []
    none, cond = gaussian(0.0, 1.0), gaussian(0.0, S**2)
    for t, s in MOVES[:3]:
        (A, B), (k_c, delta) = line(s, t), slopes(t)
        r_1 = 1 + B * k_c * (1 / A - 1) - (B * k_c) ** 2 / A
        r_w = r_1 + sign * (w - one) * B * delta * (1 + B * k_c / A) ** power
        code = last(invert(cond, LINEAR, x, [t, s])).x
        back = last(ddim(guided(none, cond, w), LINEAR, code, [t, s])).x
        off += [exact(r_w * x, back),
                exact((1 - B * (k_c + (w - one) * delta)) * (1 + B * k_c / A) * x, back)]
    return worst(off)


@equation("08.7")
@mutated(one=0, half=1, sign=-1)
def test_where_the_squeeze_ends(one=1, half=0.5, sign=1):
    x, off = normal(5), []
    none, cond = barred(bell(0.0, 1.0)), barred(bell(0.0, S**2))
    for w, top in ((1.5, 2.0), (3.0, 40.0)):
        up = follow(cond, x, LOW, top)
        back = follow(under(none, cond, w), up, top, LOW)
        share = S**2 * (1 + sign * top**2) / (S**2 + sign * top**2)
        off.append(exact(abs(share) ** (half * (w - one)) * x, back, 1e-6))
    path = range(1, 1001)  # hops of one: each factor of the product is 1 - B k_w over 1 - B k_c
    B, (k_c, delta) = (torch.tensor(v, dtype=torch.float64) for v in (
        [line(t - 1, t)[1] for t in path], list(zip(*map(slopes, path), strict=True))))
    product = ((1 - B * (k_c + 2 * delta)) / (1 - B * k_c)).prod()
    share = S**2 * (1 + sign * HIGH**2) / (S**2 + sign * HIGH**2)
    return worst([*off, exact(abs(share) ** (half * (3 - one)), product, 0.01)])


@equation("08.8")
@mutated(half=1, sign=-1, first=0)
def test_the_size_of_a_code_inverted_under_guidance(half=0.5, sign=1, first=1):
    off, x = [], torch.tensor([S], dtype=torch.float64)
    none, cond = barred(bell(0.0, 1.0)), barred(bell(0.0, S**2))
    for w, top in ((1.0, 3.0), (3.0, 2.0), (7.5, 40.0)):
        code = follow(under(none, cond, w), x, LOW, top, 1000) / math.sqrt(1 + top**2)
        ratio = (S**2 + top**2) / (S**2 * (1 + top**2))
        off.append(exact(S**first * ratio ** (sign * half * w), code, 1e-6))
    return worst(off)


# ---- null-text ---------------------------------------------------------------------------------


@equation("08.9")
@mutated(mean=1, sign=1, one=0)
def test_the_loss_of_null_text(mean=2, sign=-1, one=1):
    """The package's losses before the first update and as they are, in its order of hops."""
    null, w = 0.3 * normal(40, 2, seed=3), 3.0
    found, off = list(ways.null_text(shifted, SOURCE, LINEAR, pivot(), null, w, 0)), []
    for before, after, (_, goal) in zip(found, found[1:], hops(), strict=False):
        a, b = line(before.t, after.t)
        e_c, e_0 = SOURCE(before.x, before.t), shifted(null)(before.x, before.t)
        there = a * before.x + b * (one * e_0 + w * (e_c - e_0))
        loss = (there + sign * goal.x).square().sum(1).mean() / mean
        off.append(exact(loss, after.losses[-1], 1e-8))
    return worst(off)


@equation("08.10")
@mutated(sign=1, two=1, one=0)
def test_the_gradient_of_null_text(sign=-1, two=2, one=1):
    """Autograd through the package's sampler, against the Jacobian of eps alone."""
    now, goal = hops()[6]
    a, b = line(now.t, goal.t)
    off = []
    for w in (1.0, 7.5):
        null = (0.3 * normal(40, 2, seed=3)).requires_grad_()
        there = last(ddim(lambda x, t, null=null, w=w: shifted(null)(x, t) + w * (
            SOURCE(x, t) - shifted(null)(x, t)), LINEAR, now.x, [now.t, goal.t])).x
        loss = (there - goal.x).square().mean(1).sum()
        (wanted,) = torch.autograd.grad(loss, null)
        G = torch.stack([torch.autograd.functional.jacobian(
            lambda k, i=i: shifted(k)(now.x[i:i + 1], now.t)[0], null[i].detach())
            for i in range(40)])  # (n, out, in)
        miss = (there - goal.x).detach()
        off.append(exact(sign * two / 2 * (w - one) * b * torch.einsum("noi,no->ni", G, miss),
                         wanted))
    return worst(off)


@equation("08.11")
@mutated(sign=-1, one=0, down=-1)
def test_the_noise_that_null_text_is_after(sign=1, one=1, down=1):
    """A predictor that returns it is led along the pivot from wherever it stands."""
    off, w = [], 7.5
    for now, goal in hops():
        a, b = line(now.t, goal.t)
        x = now.x + 0.1 * normal(40, 2, seed=now.t)
        e_c = SOURCE(x, now.t)
        star = (goal.x - down * a * x) / b
        needed = e_c + sign * (e_c - star) / (w - one)
        eps = guided(lambda x, t, e=needed: e, lambda x, t, e=e_c: e, w)
        off.append(exact(last(ddim(eps, LINEAR, x, [now.t, goal.t])).x, goal.x))
    return worst(off)


@equation("08.12")
@mutated(sign=-1, stale=True, source=True)
def test_on_the_pivot_it_is_nearly_the_own_prompts(sign=1, stale=False, source=False):
    """The equality exactly; the first order at short hops, where a Gaussian's J is a number."""
    off = []
    for now, goal in hops():
        a, b = line(now.t, goal.t)
        star = (goal.x - a * now.x) / b
        below = SOURCE(goal.x, max(goal.t, 1) if stale else now.t)
        off.append(exact(SOURCE(now.x, now.t) - below, SOURCE(now.x, now.t) - star, 1e-8))
    for t in (800, 300):
        x, level = points(), LINEAR.level(t)
        up = last(invert(SOURCE, LINEAR, x, [t, t - 1])).x
        J = math.sqrt(1 - level) / (level * TRIANGLE.std**2 + 1 - level)
        step = (x - up) if source else (up - x)
        off.append(exact(sign * J * step, SOURCE(up, t) - SOURCE(x, t), 1e-9))
    return worst(off)


# ---- negative prompt ---------------------------------------------------------------------------


@equation("08.13")
@mutated(sign=1, one=0.9)
def test_an_own_prompt_as_negative_makes_any_weight_one(sign=-1, one=1):
    x, off = normal(6, 2), []
    for w in (0.0, 3.0, 7.5):
        e = SOURCE(x, 300)
        off += [exact(one * e + w * (e + sign * e), e),
                exact(one * e + w * (e + sign * e), guided(SOURCE, SOURCE, w)(x, 300))]
    return worst(off)


@equation("08.14")
@mutated(sign=1, one=0)
def test_a_negative_prompt_pushes_away_from_the_source(sign=-1, one=1):
    x, off = normal(6, 2), []
    for t, w in ((300, 3.0), (700, 7.5)):
        ordinary = guided(NONE, TARGET, w)(x, t)
        away = (w - one) * (SOURCE(x, t) - NONE(x, t))
        off.append(exact(ordinary + sign * away, guided(SOURCE, TARGET, w)(x, t)))
    return worst(off)


@equation("08.15")
@mutated(power=1, sign=1, less=0)
def test_how_far_an_edit_goes_in_the_shift(power=0.5, sign=-1, less=1):
    """ODEs in steps: up around the source, down under guidance from the empty or own prompt."""
    x, off = MU + 0.5 * normal(5), []
    none, source, target = (barred(bell(m, D)) for m in (0.0, MU, NU))
    for w, top in ((1.5, 2.0), (3.0, 40.0)):
        code = follow(source, x, LOW, top)
        kappa = (D / (D + top**2)) ** power
        for base, m in ((none, w * NU), (source, MU + w * (NU - MU))):
            edit = follow(under(base, target, w), code, top, LOW)
            off.append(exact((1 + sign * kappa) * (m - less * MU) + 0 * x, edit - x, 1e-6))
    return worst(off)


# ---- direct ------------------------------------------------------------------------------------


@equation("08.16")
@mutated(sign=-1, kept=0.9)
def test_the_offsets_lead_along_the_pivot(sign=1, kept=1):
    """Stored and added as printed; the package's replay goes the same way."""
    eps = guided(NONE, SOURCE, 7.5)
    code, off = list(ways.direct(eps, LINEAR, pivot())), []
    x = pivot()[-1].x
    for (now, goal), hop, state in zip(hops(), code[1:], list(replay(eps, LINEAR, code))[1:],
                                       strict=True):
        a, b = line(now.t, goal.t)
        d = goal.x - (a * now.x + b * eps(now.x, now.t))
        x = a * x + b * eps(x, now.t) + sign * kept * d
        off += [exact(d, hop.noise), exact(x, goal.x), exact(x, state.x)]
    return worst(off)


@equation("08.17")
@mutated(sign=1, one=0, star=1)
def test_what_the_offsets_are_made_of(sign=-1, one=1, star=-1):
    """star: eps* from the noise of the way up."""
    w, off = 3.0, []
    code = list(ways.direct(guided(NONE, SOURCE, w), LINEAR, pivot()))
    for (now, goal), hop in zip(hops(), code[1:], strict=True):
        b, e_c = line(now.t, goal.t)[1], SOURCE(now.x, now.t)
        bracket = (w - one) * (e_c - NONE(now.x, now.t)) + e_c + star * SOURCE(goal.x, now.t)
        off.append(exact(sign * b * bracket, hop.noise, 1e-8))
    return worst(off)


@equation("08.18")
@mutated(sign=1, plus=-1)
def test_a_target_that_takes_the_offsets(sign=-1, plus=1):
    """The package's replay of the source's offsets with the target's predictor, hop by hop."""
    w, off = 3.0, []
    source, target = (guided(NONE, eps, w) for eps in (SOURCE, TARGET))
    code = list(ways.direct(source, LINEAR, pivot()))
    states = list(replay(target, LINEAR, code))
    for before, after, (now, goal) in zip(states, states[1:], hops(), strict=False):
        a, b = line(before.t, after.t)
        bracket = (SOURCE(goal.x, now.t) + plus * target(before.x, before.t)
                   + sign * source(now.x, now.t))
        off.append(exact(a * before.x + b * bracket, after.x, 1e-8))
    return worst(off)


# ---- the fixed point ---------------------------------------------------------------------------


@equation("08.19")
@mutated(one=0, sign=-1, first=1)
def test_the_weight_above_which_no_step_helps(one=1, sign=1, first=-1):
    """g_w by autograd of the map that is iterated; solved just below the limit, not just above."""
    none, cond, off = gaussian(0.0, 1.0), gaussian(0.0, S**2), []
    for t, s in ((1000, 900), (1000, 950), (400, 300)):
        (_, B), (k_c, delta) = line(s, t), slopes(t)
        for w in (3.0, 12.0):
            rise = (guided(none, cond, w)(torch.ones(1).double(), t)
                    - guided(none, cond, w)(torch.zeros(1).double(), t))
            off.append(exact(B * k_c + sign * (w - one) * B * delta, B * rise))
        limit = one + (1 + first * B * k_c) / (B * delta)
        left = [float(last(fixed_point(guided(none, cond, v * limit), LINEAR,
                                       torch.ones(1, 1).double(), [t, s], 60)).residual.max())
                for v in (0.95, 1.05)]
        off.append(0.0 if left[0] < 1e-4 < 1e-2 < left[1] else 1e9)
    return worst(off)
