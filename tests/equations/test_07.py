"""Numeric twins of lecture 07: CLIP's loss and its bound, latents, guidance, cross-attention."""

import math
from functools import cache
from itertools import product

import pytest
import torch
from open_clip import ClipLoss
from toys import TRIANGLE
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from coursekit.diffusion.predict import guided
from coursekit.diffusion.schedule import Schedule
from coursekit.nets.clip import directional_loss

from . import exact, mutated, sampled
from .gaussian import GRID, integral, normal as log_normal

equation = pytest.mark.equation
LINEAR = Schedule.linear()
MU, S = 0.8, 0.5  # of p(x | c); p(x) is N(0, 1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def units(n, d, seed=0):
    return F.normalize(normal(n, d, seed=seed), dim=1)


def worst(residuals):
    return max(residuals)


def above(value, bound):
    """How far value lies above what it must not exceed, in units of rounding."""
    return max(0.0, float(value - bound)) / 1e-10


def loss(scores, share=0.5):
    """(07.1) from cross-entropies."""
    right = torch.arange(len(scores))
    return share * F.cross_entropy(scores, right) + (1 - share) * F.cross_entropy(scores.T, right)


# ---- the contrastive loss ------------------------------------------------------------------


@equation("07.1")
@mutated(sign=-1, half=1, turned=False)
def test_the_loss_is_open_clips(sign=1, half=0.5, turned=True):
    u, v = units(7, 5), units(7, 5, 1)
    s = u @ v.T / 0.2
    rows = (s.exp().sum(1).log() - sign * s.diagonal()).mean()
    columns = (s.exp().sum(0 if turned else 1).log() - sign * s.diagonal()).mean()
    return exact(half * (rows + columns), ClipLoss()(u, v, 5.0))


JOINT = torch.tensor([[0.20, 0.05, 0.02, 0.03], [0.04, 0.16, 0.10, 0.05],
                      [0.01, 0.04, 0.08, 0.22]], dtype=torch.float64)
P_X, P_Y = JOINT.sum(1), JOINT.sum(0)


@equation("07.2")
@mutated(power=(0, 2), prior=0)
def test_the_posterior_of_the_right_place(power=1, prior=1):
    """Against Bayes' rule over all places, every caption's probability written out."""
    given = JOINT / P_X[:, None]
    off = []
    for x, y in product(range(3), product(range(4), repeat=3)):
        joint = [torch.stack([given[x, y[k]] if k == j else P_Y[y[k]] for k in range(3)]).prod()
                 for j in range(3)]
        ratio = (given[x, list(y)] / P_Y[list(y)] ** prior) ** power
        off.append(exact(ratio / ratio.sum(), torch.stack(joint) / sum(joint)))
    return worst(off)


def expected(table, n, joint=JOINT, directions=(0, 1)):
    """The loss of scores table[x, y], its mean over all batches of n pairs."""
    pairs = list(product(range(joint.shape[0]), range(joint.shape[1])))
    total = 0
    for batch in product(pairs, repeat=n):
        xs, ys = map(list, zip(*batch, strict=True))
        s = table[xs][:, ys]
        each = -sum(s.log_softmax(1 - k).diagonal().mean() for k in directions) / len(directions)
        total = total + joint[xs, ys].prod() * each
    return total


@equation("07.3")
@mutated(factor=(0.5, 2), of_x=0, of_y=0)
def test_the_best_score_is_where_the_loss_is_flat(factor=1, of_x=1, of_y=1):
    score = factor * (JOINT.log() - of_x * P_X.log()[:, None] - of_y * P_Y.log()) + 0.7
    score.requires_grad_()
    expected(score, 2).backward()
    return exact(score.grad, 0.0)


@equation("07.4")
@mutated(factor=0.9, more=1.1)
def test_the_loss_bounds_the_information(factor=1, more=1):
    """All batches of small joints and any score; a pair of coins, where the bound is nearly met."""
    information = (JOINT * (JOINT / P_X[:, None] / P_Y).log()).sum()
    best = (JOINT / P_X[:, None] / P_Y).log()
    off = [above(more * math.log(2) - factor * expected(score, 2), information)
           for score in (best, 0.3 * best, normal(3, 4))]
    n = 64  # x = y, a fair coin: a row's loss is log(1 + how many others show the same side)
    coin = sum(math.comb(n - 1, k) * 0.5 ** (n - 1) * math.log(1 + k) for k in range(n))
    shown = more * math.log(n) - factor * coin
    return worst([*off, above(shown, math.log(2)), exact(shown, math.log(2), 0.02)])


@equation("07.5")
@mutated(sign=1, half=1, cross=1)
def test_two_correlated_normals(sign=-1, half=0.5, cross=2, k=3, rho=0.7):
    """Densities by torch, the information from three determinants."""
    x, y = normal(6, k), normal(6, k, seed=1)
    one = torch.eye(k).double()
    cov = torch.cat([torch.cat([one, rho * one], 1), torch.cat([rho * one, one], 1)])
    both = MultivariateNormal(torch.zeros(2 * k).double(), cov)
    alone = MultivariateNormal(torch.zeros(k).double(), one)
    ratio = both.log_prob(torch.cat([x, y], 1)) - alone.log_prob(x) - alone.log_prob(y)
    information = -half * k * math.log(1 - rho**2)
    squares = x.square().sum(1) + y.square().sum(1)
    score = (cross * rho * (x * y).sum(1) + sign * rho**2 * squares) / (2 * (1 - rho**2))
    return worst([exact(information + score, ratio), exact(information, -cov.logdet() / 2)])


@equation("07.6")
@mutated(gap=1, others=0)
def test_the_floor_of_scores_in_a_range(gap=2, others=-1, tau=0.5, n=9):
    floor = math.log(1 + (n + others) * math.exp(-gap / tau))
    extreme = (2 * torch.eye(n).double() - 1) / tau
    draws = (2 * torch.rand(200, n, n, generator=seeded(), dtype=torch.float64) - 1) / tau
    return worst([exact(loss(extreme), floor), *(above(floor, loss(s)) for s in draws)])


@equation("07.7")
@mutated(gap=(1, 2), others=0)
def test_the_floor_of_unit_vectors(gap=None, others=-1, tau=0.5, n=6):
    """Reached by a simplex; undercut by no other vectors, near it or far away."""
    floor = math.log(1 + (n + others) * math.exp(-(gap or n / (n - 1)) / tau))
    corners = F.normalize(torch.eye(n).double() - 1 / n, dim=1)
    off = [exact(loss(corners @ corners.T / tau), floor)]
    for k, size in enumerate((0.01, 0.1, 1.0, 10.0) * 10):
        u, v = (F.normalize(corners + size * normal(n, n, seed=2 * k + i), dim=1) for i in (0, 1))
        off.append(above(floor, loss(u @ v.T / tau)))
    return worst(off)


@equation("07.8")
@mutated(sign=-1, power=0)
def test_the_cosine_of_two_directions(sign=1, power=1):
    """The package's directional loss is one minus it."""
    (x, x2), (y, y2) = (units(10, 8, seed).view(2, 5, 8) for seed in (0, 1))
    di, dt = sign * (x2 - x), y2 - y
    cos = (di * dt).sum(1) / (di.norm(dim=1) * dt.norm(dim=1)) ** power
    return exact(cos, 1 - directional_loss(x2, x, dt), 1e-5)


@equation("07.9")
@mutated(power=(0.5, 2), factor=2)
def test_the_cosine_of_chance(power=1, factor=1, d=16):
    a, b = units(100_000, d), units(100_000, d, 1)
    cos = (a * b).sum(1, keepdim=True)
    return worst([sampled(cos, 0.0), sampled(cos.square(), factor / d**power)])


@equation("07.10")
@mutated(unseen=False)
def test_a_shift_that_pictures_do_not_see(unseen=True):
    pictures, texts, v = units(6, 10), units(6, 10, 1), normal(10, seed=2)
    differences = pictures[1:] - pictures[:1]
    if unseen:
        v = v - differences.T @ torch.linalg.lstsq(differences.T, v[:, None]).solution[:, 0]
    return exact(loss(pictures @ (texts + v).T / 0.1), loss(pictures @ texts.T / 0.1))


# ---- latents -------------------------------------------------------------------------------


@equation("07.11")
@mutated(two=(1, 4), sign=-1)
def test_the_posterior_that_costs_least(two=2, sign=1):
    off = []
    for weight, a in ((1e-3, 0.2), (0.5, 0.1)):
        var = torch.tensor(weight / (weight + sign * two * a), dtype=torch.float64).abs()
        var.requires_grad_()
        one, nil = torch.ones_like(var), torch.zeros_like(var)
        divergence = kl_divergence(Normal(nil + 0.4, var.sqrt()), Normal(nil, one))
        (slope,) = torch.autograd.grad(a * var + weight * divergence, var)
        off.append(exact(slope, 0.0))
    return worst(off)


@equation("07.12")
@mutated(power=(-2, 1))
def test_the_scaling_factor_makes_unit_size(power=-1):
    m = 0.3 + 5.0 * normal(50, 4, 4, 4)
    return exact((m.std() ** power * m).std(), 1.0)


@equation("07.13")
@mutated(power=1, sign=1)
def test_latents_of_a_wrong_size_are_another_schedule(power=2, sign=-1):
    u, e, off = normal(50), normal(50, seed=1), []
    for t, k in ((100, 5.5), (500, 0.2), (1000, 5.5)):
        level = LINEAR.level(t)
        size = k**power * level + 1 + sign * level
        other = k**power * level / size
        right = math.sqrt(size) * (math.sqrt(other) * u + math.sqrt(1 - other) * e)
        off.append(exact(right, LINEAR.noise(k * u, e, t)))
        off.append(exact(other / (1 - other), k**2 * level / (1 - level)))
    return worst(off)


# ---- guidance ------------------------------------------------------------------------------


def derivative(f, x):
    """Of a function of each point alone."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def log_none(x, level=1.0):
    """log p_t(x) for the data N(0, 1)"""
    return log_normal(x, 0, 1 + 0 * level)


def log_cond(x, level=1.0):
    """log p_t(x | c)"""
    return log_normal(x, math.sqrt(level) * MU, level * S**2 + 1 - level)


def tempered(w, level=1.0):
    """p_t(x) p_t(c | x)^w over the grid, normalised."""
    log_p = (1 - w) * log_none(GRID, level) + w * log_cond(GRID, level)
    p = log_p.exp()
    return p / integral(p)


@equation("07.14")
@mutated(sign=1, power=1)
def test_a_noise_predictor_is_a_score(sign=-1, power=0.5):
    """E[eps | x] by integrals over x_0, the score by autograd of a mixture."""
    weights, means, var = (0.3, 0.7), (-1.0, 1.5), 0.2
    x, off = normal(6), []

    def log_p(x, level):
        parts = [math.log(p) + log_normal(x, math.sqrt(level) * m, level * var + 1 - level)
                 for p, m in zip(weights, means, strict=True)]
        return torch.stack(parts).logsumexp(0)

    for t in (100, 400, 900):
        level = LINEAR.level(t)
        joint = log_p(GRID, 1.0) + log_normal(x[:, None], math.sqrt(level) * GRID, 1 - level)
        joint = joint.exp()
        eps = (x[:, None] - math.sqrt(level) * GRID) / math.sqrt(1 - level)
        mean = integral(joint * eps) / integral(joint)
        score = derivative(lambda x, level=level: log_p(x, level), x)
        off.append(exact(score, sign * mean / (1 - level) ** power, 1e-8))
    return worst(off)


@equation("07.15")
@mutated(sign=1)
def test_bayes_rule_for_scores(sign=-1):
    """The classifier of the three clouds is a softmax: its gradient by autograd."""
    x, off = normal(8, 2), []
    for level in (0.9, 0.4):
        (classifier, cond, none) = (derivative(f, x) for f in (
            lambda x: TRIANGLE.log_parts(x, level).log_softmax(1)[:, 0],
            lambda x: TRIANGLE.log_parts(x, level)[:, 0],
            lambda x: TRIANGLE.log_parts(x, level).logsumexp(1)))
        off.append(exact(classifier, cond + sign * none))
    return worst(off)


@equation("07.16")
@mutated(rest=(0, -1), power=-1)
def test_the_tempered_density(rest=1, power=1, prior=0.4):
    """Two classes that make up p: both forms are proportional, and Z is at most 1."""
    parts = torch.stack([math.log(prior) + log_normal(GRID, 0.5, 0.3),
                         math.log(1 - prior) + log_normal(GRID, -1.0, 1.0)])
    log_p, log_class = parts.logsumexp(0), parts.log_softmax(0)[0]
    off = []
    for w in (0.5, 2.0, 4.0):
        left = log_p + w * log_class
        right = w * (parts[0] - math.log(prior)) + (rest - power * w) * log_p
        middle = (GRID.abs() < 3).nonzero()[:, 0]
        gap = (left - right)[middle]
        off += [exact(gap, gap.mean()), above(integral(left.exp()), 1.0)]
    return worst(off)


@equation("07.17")
@mutated(sign=1, factor=2)
def test_guidance_is_the_tempered_score(sign=-1, factor=1):
    x, off = normal(8, 2), []
    for t, w in ((200, 3.0), (700, 0.5)):
        level = LINEAR.level(t)
        size = -math.sqrt(1 - level)
        cond, none, both = (size * derivative(f, x) for f in (
            lambda x, k=level: TRIANGLE.log_parts(x, k)[:, 0],
            lambda x, k=level: TRIANGLE.log_parts(x, k).logsumexp(1),
            lambda x, k=level, w=w: TRIANGLE.log_parts(x, k).logsumexp(1) +
            w * TRIANGLE.log_parts(x, k).log_softmax(1)[:, 0]))
        printed = none + factor * w * (cond + sign * none)
        package = guided(lambda x, t, e=none: e, lambda x, t, e=cond: e, w)(x, t)
        off += [exact(printed, both), exact(printed, package)]
    return worst(off)


@equation("07.18")
@mutated(less=0, sign=1)
def test_the_other_convention(less=1, sign=-1):
    none, cond = normal(2, 5)
    off = []
    for w in (0.0, 1.0, 7.5):
        mine = guided(lambda x, t: none, lambda x, t: cond, w)(none, 1)
        off.append(exact((1 + (w - less)) * cond + sign * (w - less) * none, mine))
    return worst(off)


@equation("07.19")
@mutated(one=0, sign=1, square=1)
def test_what_guidance_promises(one=1, sign=-1, square=2):
    off = []
    for w in (0.5, 2.0, 5.0):
        p, precision = tempered(w), one + sign * w + w / S**square
        mean = integral(p * GRID)
        off += [exact(w * MU / (S**square * precision), mean),
                exact(1 / precision, integral(p * (GRID - mean).square()))]
    return worst(off)


@equation("07.20")
@mutated(one=2, sign=1)
def test_temper_then_noise_is_not_noise_then_temper(one=1, sign=-1):
    """Each side against integrals; equal for w = 0 and 1, apart in between and beyond."""
    off = []
    for w in (0.0, 0.5, 1.0, 3.0):
        for level in (0.95, 0.5, 0.1):
            first = 1 / (one + sign * w + w / (level * S**2 + 1 - level))
            then = level / (one + sign * w + w / S**2) + 1 - level
            p, clean = tempered(w, level), tempered(w)
            mean, start = integral(p * GRID), integral(clean * GRID)
            spread = level * integral(clean * (GRID - start).square()) + 1 - level
            off += [exact(first, integral(p * (GRID - mean).square())), exact(then, spread),
                    above(1e-3, abs(first - then)) if w not in (0, 1) else exact(first, then)]
    return worst(off)


@equation("07.21")
@mutated(one=0, sign=1)
def test_the_slope_under_guidance(one=1, sign=-1):
    """Scores by autograd at x = xbar / sqrt(1 + sigma^2)."""
    bar, off = normal(6), []
    for sigma, w in ((0.2, 3.0), (4.0, 0.5)):
        level = 1 / (1 + sigma**2)
        x = math.sqrt(level) * bar
        none, cond = (-math.sqrt(1 - level) * derivative(lambda x, f=f, k=level: f(x, k), x)
                      for f in (log_none, log_cond))
        slope = sigma * ((one - w) * bar / (1 + sigma**2) +
                         w * (bar + sign * MU) / (S**2 + sigma**2))
        off.append(exact(slope, none + w * (cond - none)))
    return worst(off)


def pull(w, u):
    """What multiplies sigma xbar in (07.21); u = sigma^2."""
    return (1 - w) / (1 + u) + w / (S**2 + u)


def descend(rate, state, n=1500, high=20.0, low=-20.0):
    """Runge-Kutta for d state / d log u = rate(u, state), from u = e^high down to e^low."""
    h, state = (low - high) / n, torch.as_tensor(state, dtype=torch.float64)
    for i in range(n):
        a, b, c = (math.exp(high + (i + k) * h) for k in (0, 0.5, 1))
        k1 = rate(a, state)
        k2 = rate(b, state + h / 2 * k1)
        k3 = rate(b, state + h / 2 * k2)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(c, state + h * k3))
    return state


@cache
def ddim_end(w):
    """The distance of two solutions of (07.21), which are e^10 apart where sigma is e^10."""
    return descend(lambda u, x: u * pull(w, u) * x / 2, math.exp(10.0))


@cache
def ddpm_end(w):
    """Mean and variance where the reverse SDE ends."""
    def rate(u, state):
        m, v = state
        return u * torch.stack([pull(w, u) * m - w * MU / (S**2 + u), 2 * pull(w, u) * v - 1])

    return descend(rate, [0.0, math.exp(20.0)])


@equation("07.22")
@mutated(power=(0.5, 2), half=1)
def test_where_ddim_ends_under_guidance(power=1, half=0.5):
    """From the ODE in steps; half is the exponents' in H."""
    off = []
    for w in (0.5, 2.0, 3.0):
        H = (S**2) ** (half * w)
        off += [exact(S ** (power * w), ddim_end(w), 1e-6), exact(H, ddim_end(w), 1e-6)]
    return worst(off)


@equation("07.23")
@mutated(four=2, two=1, sign=1)
def test_where_ddpm_ends_under_guidance(four=4, two=2, sign=-1):
    """From the SDE's moments in steps, and the integral as printed."""
    off = []
    for w in (1.0, 2.0, 3.0):
        m, v = ddpm_end(w)
        u = torch.linspace(-25, 25, 200_001, dtype=torch.float64).exp()
        H4 = ((1 + u) ** (1 - w) * (S**2 + u) ** w) ** 2
        middle = S ** (4 * w) * torch.trapezoid(1 / H4, u)
        closed = (S**2 - S ** (four * w)) / ((2 * w - 1) * (1 + sign * S**2))
        off += [exact(MU * (1 - S ** (two * w)) / (1 + sign * S**2), m, 1e-6),
                exact(closed, v, 1e-6), exact(middle, v, 1e-6)]
    return worst(off)


@equation("07.24")
@mutated(one=0, sign=1)
def test_a_swap_reflects_the_weight(one=1, sign=-1):
    none, cond = normal(2, 5)
    eps = [lambda x, t: none, lambda x, t: cond]
    return worst([exact(cond + (one + sign * w) * (none - cond), guided(*eps, w)(none, 1))
                  for w in (-2.0, 0.3, 4.0)])


# ---- cross-attention -----------------------------------------------------------------------


def layer():
    """phi (n, f), psi (l, g), and the matrices that make queries, keys and values of them."""
    return normal(7, 6), normal(5, 3, seed=1), *(normal(k, 4, seed=2 + k) for k in (6, 3)), \
        normal(3, 4, seed=9)


def attention_map(q, k, power=0.5, dim=-1):
    return (q @ k.T / q.shape[1] ** power).softmax(dim)


@equation("07.25")
@mutated(power=(0, 1), dim=0)
def test_attention_is_torchs(power=0.5, dim=-1):
    phi, psi, to_q, to_k, to_v = layer()
    q, k, v = phi @ to_q, psi @ to_k, psi @ to_v
    M = attention_map(q, k, power, dim)
    return worst([exact(M @ v, F.scaled_dot_product_attention(q, k, v)),
                  exact(M.sum(1), 1.0)])


@equation("07.26")
@mutated(shift=1)
def test_a_column_says_what_a_token_changes(shift=0):
    phi, psi, to_q, to_k, to_v = layer()
    q, k, v = phi @ to_q, psi @ to_k, psi @ to_v
    M = attention_map(q, k)
    rate = torch.autograd.functional.jacobian(lambda v: F.scaled_dot_product_attention(q, k, v), v)
    printed = M.roll(shift, 1)[:, None, :, None] * torch.eye(4).double()[None, :, None]
    return exact(printed, rate)  # (n, d, l, d)


@equation("07.27")
@mutated(power=(0.5, 2))
def test_the_size_of_a_dot_product(power=1, d=4):
    """Signs thrown independently have mean 0 and variance 1: all cases, each as likely."""
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=2 * d)), dtype=torch.float64)
    dots = (signs[:, :d] * signs[:, d:]).sum(1)
    return worst([exact(dots.mean(), 0.0), exact(dots.square().mean(), d**power)])


@equation("07.28")
@mutated(sign=1, other=0)
def test_the_derivative_of_a_softmax(sign=-1, other=1):
    a = normal(5)
    M = a.softmax(0)
    printed = M[:, None] * (torch.eye(5).double() + sign * other * M)
    return exact(printed, torch.autograd.functional.jacobian(lambda a: a.softmax(0), a))
