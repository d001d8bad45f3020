"""Numeric twins of lecture 06: the ODE, plain inversion and its error, and three exact schemes."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal
from toys import TRIANGLE

from coursekit.diffusion.inversion import edict, edit_friendly, fixed_point
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.diffusion.schedule import Schedule

from . import exact, mutated, sampled

equation = pytest.mark.equation
LINEAR = Schedule.linear()
TOY = TRIANGLE.eps(LINEAR)
MOVES = [(1000, 980), (500, 480), (120, 20), (7, 6)]  # (t, s)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def wavy(x, t):
    return math.sqrt(1 - LINEAR.level(t)) * (0.9 * x + 0.1 * torch.sin(3 * x + 0.01 * t))


def worst(residuals):
    return max(residuals)


def down(t, s, sign=-1):
    """a, b of (06.1)"""
    a = math.sqrt(LINEAR.level(s) / LINEAR.level(t))
    return a, math.sqrt(1 - LINEAR.level(s)) + sign * a * math.sqrt(1 - LINEAR.level(t))


def up(t, s, sign=-1):
    """A, B of (06.5)"""
    now, then = LINEAR.level(t), LINEAR.level(s)
    second = math.sqrt(now * (1 - then) / then)
    return math.sqrt(now / then), math.sqrt(1 - now) + sign * second


# ---- the step and its ODE ------------------------------------------------------------------


@equation("06.1")
@mutated(sign=1)
def test_the_step_as_a_line(sign=-1):
    """A predictor that knows the noise must be led to the same picture and noise at level s."""
    x0, e = normal(2, 3, 4)
    off = []
    for t, s in MOVES:
        a, b = down(t, s, sign)
        off.append(exact(a * LINEAR.noise(x0, e, t) + b * e, LINEAR.noise(x0, e, s)))
    return worst(off)


@equation("06.2")
@mutated(power=0, sign=1)
def test_the_step_as_a_difference(power=1, sign=-1):
    """power=0 drops the denominators, as the reading note does."""
    x, off = normal(5, 2), []
    for t, s in MOVES:
        now, then = LINEAR.level(t), LINEAR.level(s)
        y = last(ddim(wavy, LINEAR, x, [t, s])).x
        gap = math.sqrt((1 - then) / then**power) + sign * math.sqrt((1 - now) / now**power)
        off.append(exact(gap * wavy(x, t), y / math.sqrt(then) - x / math.sqrt(now)))
    return worst(off)


def density(x, level):
    """log p_t of the toy in one coordinate pair, by torch's mixture, summed over rows."""
    var = level * TRIANGLE.std**2 + 1 - level
    parts = Normal(math.sqrt(level) * TRIANGLE.means.T, math.sqrt(var))  # (2, 3)
    log_p = parts.log_prob(x[..., None]).sum(-2)  # (n, 3)
    return log_p.logsumexp(-1).sum()


def score_eps(x, level):
    x = x.detach().requires_grad_()
    (score,) = torch.autograd.grad(density(x, level), x)
    return -math.sqrt(1 - level) * score


@equation("06.3")
@mutated(sign=-1, one=0.5)
def test_fine_sampling_follows_the_ode(sign=1, one=1):
    """Runge-Kutta in sigma-bar, with a score by autograd, against 500 steps of DDIM."""

    def slope(bar, sigma):
        return sign * score_eps(bar / math.sqrt(sigma**2 + one), 1 / (sigma**2 + 1))

    x = normal(20, 2)
    t, s, n = 500, 100, 100
    ends = [math.sqrt(1 / LINEAR.level(k) - 1) for k in (t, s)]
    bar, h = x / math.sqrt(LINEAR.level(t)), (ends[1] - ends[0]) / n
    for i in range(n):
        sigma = ends[0] + i * h
        k1 = slope(bar, sigma)
        k2 = slope(bar + h / 2 * k1, sigma + h / 2)
        k3 = slope(bar + h / 2 * k2, sigma + h / 2)
        bar = bar + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(bar + h * k3, sigma + h))
    fine = last(ddim(TOY, LINEAR, x, list(range(t, s - 1, -1)))).x
    return exact(fine, math.sqrt(LINEAR.level(s)) * bar, 5e-3)


@equation("06.4")
@mutated(power=1, one=0.5)
def test_the_gaussian_solution(power=0.5, one=1, d=0.25):
    """Its derivative in sigma-bar is the predictor, which is a score by autograd."""
    x0, off = normal(30), []
    for sigma in (0.1, 1.0, 8.0):
        at = torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
        bar = x0 * ((one * d + at**2) / d) ** power
        rates = torch.stack([torch.autograd.grad(b, at, retain_graph=True)[0] for b in bar])
        level = 1 / (1 + sigma**2)
        x = (math.sqrt(level) * bar).detach().requires_grad_()
        centre = torch.zeros(30, dtype=torch.float64)
        log_p = Normal(centre, math.sqrt(level * d + 1 - level)).log_prob(x).sum()
        off.append(exact(rates, -math.sqrt(1 - level) * torch.autograd.grad(log_p, x)[0]))
    return worst(off)


# ---- inverting a step ----------------------------------------------------------------------


@equation("06.5")
@mutated(sign=1)
def test_the_exact_inverse_of_a_step(sign=-1):
    x, off = normal(5, 2), []
    for t, s in MOVES:
        y = last(ddim(wavy, LINEAR, x, [t, s])).x
        A, B = up(t, s, sign)
        off.append(exact(A * y + B * wavy(x, t), x))
    return worst(off)


@equation("06.6")
@mutated(at_source=True)
def test_plain_inversion_asks_at_the_target_time(at_source=False):
    x, off = normal(5, 2), []
    for t, s in MOVES[:3]:
        A, B = up(t, s)
        off.append(exact(A * x + B * wavy(x, s if at_source else t),
                         last(invert(wavy, LINEAR, x, [t, s])).x))
    return worst(off)


def jacobian(x, t):
    """d eps / dx of the toy at each row, (n, 2, 2), by autograd of the score by autograd."""
    x = x.detach().requires_grad_()
    level = LINEAR.level(t)
    (score,) = torch.autograd.grad(density(x, level), x, create_graph=True)
    rows = [torch.autograd.grad(score[:, i].sum(), x, retain_graph=True)[0] for i in (0, 1)]
    return -math.sqrt(1 - level) * torch.stack(rows, 1)


@equation("06.7")
@mutated(sign=1, factor=0.5)
def test_the_error_of_one_hop(sign=-1, factor=1):
    """Against the solved equation, to a few per cent: the next order is left out."""
    points, off = TRIANGLE.sample(50, seeded()), []
    for t, s in ((205, 200), (502, 500)):
        x = LINEAR.noise(points, normal(50, 2, seed=1), s)
        solved = last(fixed_point(TOY, LINEAR, x, [t, s], 50, 1e-14)).x
        plain = last(invert(TOY, LINEAR, x, [t, s])).x
        B = up(t, s)[1]
        printed = sign * factor * B * (jacobian(x, t) @ (solved - x)[..., None])[..., 0]
        scale = printed.abs().max()
        off.append(exact((plain - solved) / scale, printed / scale, 0.04))
    return worst(off)


@equation("06.8")
@mutated(order=(0, 2))
def test_the_round_trip_is_of_first_order(order=1):
    x, errors = TRIANGLE.sample(200, seeded()), []
    for S in (100, 200):
        path = LINEAR.trailing(S)
        code = last(invert(TOY, LINEAR, x, path)).x
        errors.append((last(ddim(TOY, LINEAR, code, path)).x - x).square().mean().sqrt())
    return exact(math.log2(errors[0] / errors[1]), order, 0.04)


@equation("06.9")
@mutated(sign=1, square=2)
def test_the_gaussian_round_trip_over_one_hop(sign=-1, square=1, d=0.25):
    x, off = normal(5, 1), []
    for t, s in MOVES[:3]:
        A, B = up(t, s)
        k = math.sqrt(1 - LINEAR.level(t)) / (LINEAR.level(t) * d + 1 - LINEAR.level(t))
        code = last(invert(lambda x, t, k=k: k * x, LINEAR, x, [t, s])).x
        back = last(ddim(lambda x, t, k=k: k * x, LINEAR, code, [t, s])).x
        product = (1 + sign * B * k) * (1 + B * k / A)
        expanded = 1 + B * k * (1 / A - 1) - square * (B * k) ** 2 / A
        off += [exact(product * x, back), exact(expanded * x, back)]
    return worst(off)


@equation("06.10")
@mutated(rho=(1, 14), sign=-1)
def test_the_hops_are_even_in_a_root_of_the_noise_level(rho=7, sign=1):
    """The package's path lies within a time of the formula, in every schedule."""
    off = []
    for schedule, S in ((LINEAR, 20), (Schedule.cosine(), 12)):
        path = schedule.karras(S)
        bar = (1 / schedule.abar - 1).sqrt()
        high, low = (float(bar[t]) ** (1 / rho) for t in (path[0], 1))
        for i, t in enumerate(path[:-1]):
            level = (high + sign * i / (S - 1) * (low - high)) ** rho
            off.append(abs(level - float(bar[t])) / float(bar[t + 1] - bar[t - 1]))
        off.append(0.0 if (path[-1], len(path)) == (0, S + 1) else 1e9)
    return worst(off)


# ---- EDICT ---------------------------------------------------------------------------------


def pair():
    return normal(2, 5, 2)


@equation("06.11")
@mutated(stale=True, sign=-1)
def test_the_coupled_step(stale=False, sign=1):
    """The package's hop without blending; stale=True shows y the old x."""
    x, y = pair()
    off = []
    for t, s in MOVES:
        a, b = down(t, s)
        first = a * x + sign * b * wavy(y, t)
        second = a * y + sign * b * wavy(x if stale else first, t)
        twins = last(edict(wavy, LINEAR, x, [t, s], y, 1.0))
        off += [exact(first, twins.x), exact(second, twins.y)]
    return worst(off)


@equation("06.12")
@mutated(sign=1, stale=True)
def test_the_coupled_step_is_undone(sign=-1, stale=False):
    x, y = pair()
    off = []
    for t, s in MOVES[:3]:
        a, b = down(t, s)
        twins = last(edict(wavy, LINEAR, x, [t, s], y, 1.0))
        second = (twins.y + sign * b * wavy(twins.x, t)) / a
        first = (twins.x + sign * b * wavy(twins.y if stale else second, t)) / a
        off += [exact(second, y), exact(first, x)]
    return worst(off)


@equation("06.13")
@mutated(stale=True, swap=True)
def test_blending(stale=False, swap=False, p=0.93):
    x, y = pair()
    off = []
    for t, s in MOVES:
        plain = last(edict(wavy, LINEAR, x, [t, s], y, 1.0))
        blended = last(edict(wavy, LINEAR, x, [t, s], y, p))
        q = 1 - p if swap else p
        first = q * plain.x + (1 - q) * plain.y
        second = q * plain.y + (1 - q) * (plain.x if stale else first)
        off += [exact(first, blended.x), exact(second, blended.y)]
    return worst(off)


@equation("06.14")
@mutated(power=(1, 3))
def test_blending_shrinks_the_difference(power=2):
    x, y = pair()
    off = []
    for p in (0.93, 0.5):
        plain = last(edict(wavy, LINEAR, x, [500, 480], y, 1.0))
        blended = last(edict(wavy, LINEAR, x, [500, 480], y, p))
        off.append(exact(p**power * (plain.x - plain.y), blended.x - blended.y))
    return worst(off)


# ---- edit-friendly -------------------------------------------------------------------------


@equation("06.15")
@mutated(sign=-1, signal=0.9)
def test_the_noise_that_is_kept(sign=1, signal=1):
    """The mean as DDPM's product of two Gaussians, from the predicted x_0, in the betas."""
    x, path, off = normal(6, 2), [1000, 600, 300, 0], []
    hops = list(edit_friendly(TOY, LINEAR, x, path, generator=seeded()))
    for before, after in zip(hops[:2], hops[1:3], strict=True):
        now, then = LINEAR.level(before.t), LINEAR.level(after.t)
        beta, x0 = 1 - now / then, LINEAR.denoise(before.x, TOY(before.x, before.t), before.t)
        mean = (signal * math.sqrt(then) * beta * x0
                + sign * math.sqrt(now / then) * (1 - then) * before.x) / (1 - now)
        off.append(exact((after.x - mean) / after.sd, after.noise / after.sd))
    return worst(off)


def known(x, t):
    """A predictor that knows that x_0 = 0."""
    return x / math.sqrt(1 - LINEAR.level(t))


N = 200_000
SHORT_PATH = [1000, 980, 960, 0]


def kept_noise():
    x = torch.zeros(N, 1, dtype=torch.float64)
    hops = list(edit_friendly(known, LINEAR, x, SHORT_PATH, generator=seeded()))
    return [h.noise / h.sd for h in hops[1:3]], [h.sd for h in hops[1:3]]


@equation("06.16")
@mutated(signal=0.7, noise=1.2)
def test_states_share_the_picture_and_no_noise(signal=1, noise=1):
    x = torch.full((N, 1), 0.7, dtype=torch.float64)
    hops = list(edit_friendly(known, LINEAR, x, [400, 200, 50, 0], generator=seeded()))
    n = torch.cat([(h.x - signal * math.sqrt(LINEAR.level(h.t)) * x)
                   / (noise * math.sqrt(1 - LINEAR.level(h.t))) for h in hops[:3]], 1)  # (N, 3)
    return sampled(n[:, :, None] * n[:, None], torch.eye(3).double())


@equation("06.17")
@mutated(factor=1, sign=1)
def test_the_kept_noise_is_wide(factor=2, sign=-1):
    z, _ = kept_noise()
    return worst([sampled(z_i**2, factor * (1 - LINEAR.level(t)) / LINEAR.beta(t, s) + sign)
                  for z_i, t, s in zip(z, SHORT_PATH, SHORT_PATH[1:], strict=False)])


@equation("06.18")
@mutated(sign=1, spread=1)
def test_neighbours_of_the_kept_noise_are_correlated(sign=-1, spread=-1):
    z, sd = kept_noise()
    s, r = SHORT_PATH[1:3]
    room = 1 - LINEAR.level(r) + spread * sd[1] ** 2
    covariance = sign * math.sqrt(1 - LINEAR.level(s)) * math.sqrt(room) / (sd[0] * sd[1])
    return sampled(z[0] * z[1], covariance)


# ---- fixed point ---------------------------------------------------------------------------


@equation("06.19")
@mutated(sign=-1, start=0.9)
def test_the_fixed_point_comes_down_to_where_it_began(sign=1, start=1):
    x, off = TRIANGLE.sample(50, seeded()), []
    for t, s in ((220, 200), (510, 500)):
        A, B = up(t, s)
        y = LINEAR.noise(x, normal(50, 2, seed=1), s)
        guess = y
        for _ in range(300):
            guess = start * A * y + sign * B * TOY(guess, t)
        off.append(exact(last(ddim(TOY, LINEAR, guess, [t, s])).x, y))
    return worst(off)


@equation("06.20")
@mutated(sign=1, power=0.5)
def test_the_jacobian_is_a_covariance(sign=-1, power=1):
    """Covariance by the posterior of the mixture; Jacobian by autograd of torch's density."""
    x, off = normal(30, 2), []
    for t in (100, 300, 900):
        level = LINEAR.level(t)
        a, var = math.sqrt(level), TRIANGLE.std**2
        gain = a * var / (level * var + 1 - level)
        means = TRIANGLE.means + gain * (x[:, None] - a * TRIANGLE.means)  # (n, 3, 2)
        log_p = Normal(a * TRIANGLE.means, math.sqrt(level * var + 1 - level)).log_prob(x[:, None])
        law = MixtureSameFamily(Categorical(logits=log_p.sum(-1)[:, None].expand(-1, 2, -1)),
                                Normal(means.mT, math.sqrt(var - gain * a * var)))  # margins
        share = law.mixture_distribution.probs[:, 0]
        off_mean = means - law.mean[:, None]
        covariance = (share[..., None, None] * off_mean[..., None] * off_mean[..., None, :]).sum(1)
        covariance = covariance + (var - gain * a * var) * torch.eye(2).double()
        off.append(exact(covariance.diagonal(dim1=1, dim2=2), law.variance))
        printed = torch.eye(2) + sign * (level / (1 - level)) ** power * covariance
        off.append(exact(printed / math.sqrt(1 - level), jacobian(x, t), 1e-8))
    return worst(off)


@equation("06.21")
@mutated(sign=1, power=1)
def test_the_largest_eigenvalue(sign=-1, power=0.5):
    """Attained by a single picture, whose predictor is a line; no other law exceeds it."""
    x, off = normal(400, 2), []
    for t, s in MOVES:
        now, then = LINEAR.level(t), LINEAR.level(s)
        bound = 1 + sign * (now * (1 - then) / (then * (1 - now))) ** power
        shift = x.detach().requires_grad_()
        (rate,) = torch.autograd.grad(known(shift, t).sum(), shift)
        B = up(t, s)[1]
        off.append(exact(B * rate, bound))
        largest = B * torch.linalg.eigvalsh(jacobian(x, t)).max()
        off.append(0.0 if largest < 1 - (now * (1 - then) / (then * (1 - now))) ** 0.5 else 1e9)
    return worst(off)


@equation("06.22")
@mutated(sign=1, two=4)
def test_damping(sign=-1, two=2):
    """One damped step on a line of slope g; on the edge of the interval errors keep their size."""
    off = []
    for g in (-3.0, -0.5, 0.8):
        G = (lambda x, g=g: g * x + 1.0)
        truth = 1 / (1 - g)
        for damping in (0.1, 0.4, two / (1 - g)):
            x = 9.0 + damping * (G(9.0) - 9.0)
            off.append(exact((x - truth) / (9 - truth), 1 + sign * damping * (1 - g)))
        off.append(exact(abs(x - truth), 9 - truth))
    return worst(off)
