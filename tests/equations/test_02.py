"""Numeric twins of lecture 02: diffusion as a linear-Gaussian hierarchy.

A short schedule of five coarse steps is compared with dense covariance matrices, densities are
integrated over a grid, divergences come from torch, and derivatives from autograd.
"""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from coursekit.diffusion import elbo
from coursekit.diffusion.mhvae import Chain
from coursekit.diffusion.predict import from_eps
from coursekit.diffusion.schedule import Schedule

from . import exact, mutated, sampled
from .gaussian import GRID, dense_bound, doubles, falling, integral, normal, rising

equation = pytest.mark.equation

BETA = doubles(0.1, 0.2, 0.3, 0.4, 0.5)
T, X = 5, 2.0
SHORT = Schedule(torch.cat([doubles(1.0), (1 - BETA).cumprod(0)]))
ABAR = SHORT.abar
TIMES = range(2, T + 1)
KNOWN = rising((1 - BETA).sqrt(), BETA, X)  # (x_0, .., x_T) from x_0 = X
LINEAR = Schedule.linear()
N = 100_000


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread_over(s2: float):
    """(x_0, .., x_T) from x_0 ~ N(0, s2)."""
    return rising((1 - BETA).sqrt(), BETA, 0.0, s2)


def back(t: int, x_t: float, x0: float = X) -> Normal:
    """q(x_{t-1} | x_t, x_0), by conditioning in the joint covariance."""
    law = rising((1 - BETA).sqrt(), BETA, x0).given(t, x_t).only(t - 1)
    return Normal(law.mean[0], law.covariance_matrix[0, 0].sqrt())


def snr(t: int) -> float:
    return float(ABAR[t] / (1 - ABAR[t]))


def change(t: int) -> float:
    return snr(t - 1) - snr(t)


# ---- forward ---------------------------------------------------------------------------------


@equation("02.1")
@mutated(root=1, spread=1)
def test_a_step_leads_from_level_to_level(root=0.5, spread=0.5):
    """One step from a draw at level 1 has the package's law of level 2."""
    x0, noise = torch.full((N,), X, dtype=torch.float64), drawn(2, N)
    x = SHORT.noise(x0, noise[0], 1)
    x = (1 - BETA[1]) ** root * x + BETA[1] ** spread * noise[1]
    mean, rest = math.sqrt(ABAR[2]) * X, float(1 - ABAR[2])
    return max(sampled(x, mean), sampled((x - mean) ** 2, rest))


@equation("02.2")
@mutated(power=0.5, one=0)
def test_the_variance_is_drawn_to_one(power=1, one=1):
    variance = spread_over(0.25).cov.diagonal()
    return exact(variance[1:] - one, (1 - BETA) ** power * (variance[:-1] - one))


@equation("02.3")
@mutated(root=1, power=2)
def test_any_level_in_one_jump(root=0.5, power=1):
    return max(exact(ABAR**root * X, KNOWN.mean), exact(1 - ABAR**power, KNOWN.cov.diagonal()))


@equation("02.4")
@mutated(root=1, noise=1)
def test_any_level_as_a_draw(root=0.5, noise=0.5):
    x = ABAR[3] ** root * X + (1 - ABAR[3]) ** noise * drawn(N)
    return max(sampled(x, KNOWN.mean[3]), sampled((x - KNOWN.mean[3]) ** 2, KNOWN.cov[3, 3]))


@equation("02.5")
@mutated(root=1, sign=+1)
def test_between_any_two_levels(root=0.5, sign=-1):
    law, off = spread_over(0.25), 0.0
    for s, t in ((0, 2), (1, 4), (3, 5)):
        left, ratio = law.given(s, 0.9).only(t), float(ABAR[t] / ABAR[s])
        off = max(off, exact(ratio**root * 0.9, left.mean[0]),
                  exact(1 + sign * ratio, left.covariance_matrix[0, 0]))
    return off


# ---- the step back ---------------------------------------------------------------------------


@equation("02.6")
@mutated(sign=-1, before=0)
def test_precisions_add(sign=1, before=1):
    off = 0.0
    for t in TIMES:
        b, var = BETA[t - 1], back(t, 0.4).variance
        rest = 1 - ABAR[t - before]
        off = max(off, exact((1 - b) / b + sign / rest, 1 / var),
                  exact(rest / (1 - ABAR[t]) * b, var))
    return off


@equation("02.7")
@mutated(root=1, swap=True, sign=-1)
def test_the_mean_of_the_step_back(root=0.5, swap=False, sign=1):
    off = 0.0
    for t in TIMES:
        b, rest = BETA[t - 1], 1 - ABAR[t - 1]
        x_t, x0 = (X, 0.4) if swap else (0.4, X)
        mean = (1 - b) ** root * rest * x_t + sign * ABAR[t - 1] ** root * b * x0
        off = max(off, exact(mean / (1 - ABAR[t]), back(t, 0.4).mean))
    return off


@equation("02.8")
@mutated(root=1, sign=+1, shrink=0)
def test_the_mean_from_the_noise(root=0.5, sign=-1, shrink=0.5):
    off = 0.0
    for t in TIMES:
        eps = (0.4 - ABAR[t].sqrt() * X) / (1 - ABAR[t]).sqrt()
        b = BETA[t - 1]
        mean = (0.4 + sign * b / (1 - ABAR[t]) ** root * eps) / (1 - b) ** shrink
        off = max(off, exact(mean, back(t, 0.4).mean))
    return off


# ---- the three parts -------------------------------------------------------------------------

GUESS = 0.6  # the model believes x_0 = GUESS x_t, at every level
WIDTH = doubles(0.3, 0.2, 0.25, 0.3, 0.4)  # and its step back to t-1 has the variance WIDTH[t-1]


def coefficients(t: int) -> tuple[float, float]:
    """k, g with q's mean k x_t + g x_0, from the dense law."""
    ends = [float(back(t, x_t, x0).mean) for x_t, x0 in ((1.0, 0.0), (0.0, 1.0))]
    return ends[0], ends[1]


@equation("02.9")
@mutated(top=-1, inner=-1, bottom=-1, first=3)
def test_the_negative_bound(top=1, inner=1, bottom=1, first=2):
    """L_T + sum L + L_0, by grids and torch's KL, against dense matrices and the evidence."""
    slope = doubles(GUESS, *(k + g * GUESS for k, g in map(coefficients, TIMES)))
    model = falling(slope, WIDTH, 1.0)

    def level(t: int) -> torch.Tensor:
        return KNOWN.only(t).log_prob(GRID[:, None]).exp()

    loss = top * kl_divergence(Normal(KNOWN.mean[T], KNOWN.cov[T, T].sqrt()), Normal(0.0, 1.0))
    for t in range(first, T + 1):
        k, g = coefficients(t)
        q = Normal(k * GRID + g * X, back(t, 0.0).stddev)
        p = Normal(slope[t - 1] * GRID, WIDTH[t - 1].sqrt())
        loss = loss + inner * integral(level(t) * kl_divergence(q, p))
    decoder = -integral(level(1) * normal(X, slope[0] * GRID, WIDTH[0]))
    loss, evidence = loss + bottom * decoder, model.only(0).log_prob(doubles(X))
    return max(exact(-loss, dense_bound(KNOWN, model)), float(-loss - evidence) / 1e-10)


@equation("02.10")
@mutated(sign=+1, one=0, half=1)
def test_the_prior_term(sign=-1, one=1, half=0.5):
    x0, off = drawn(3, 12) * 0.5, 0.0
    for schedule in (SHORT, LINEAR):
        a = schedule.level(schedule.T)
        formula = half * (a * (x0**2 - one) + sign * math.log(1 - a)).sum(1)
        q = Normal(math.sqrt(a) * x0, doubles(math.sqrt(1 - a)))
        off = max(off, exact(formula, kl_divergence(q, Normal(0.0, 1.0)).sum(1)))
    return off


@equation("02.11")
@mutated(root=1, sign=-1)
def test_the_mean_with_a_guess(root=0.5, sign=1):
    off = 0.0
    for t in TIMES:
        factor = ABAR[t - 1] ** root * BETA[t - 1] / (1 - ABAR[t])
        moved = back(t, 0.4).mean + sign * factor * (-0.2 - X)
        off = max(off, exact(moved, back(t, 0.4, -0.2).mean))
    return off


def kl_of_guess(t: int, guess: float, ratio: float = 1.0) -> torch.Tensor:
    """KL from q(x_{t-1} | x_t, x_0 = X) to the same with x_0 = guess, its variance times ratio."""
    q, p = back(t, 0.4), back(t, 0.4, guess)
    return kl_divergence(q, Normal(p.mean, p.stddev * math.sqrt(ratio)))


@equation("02.12")
@mutated(half=1, before=0, power=2)
def test_a_matching_term_is_a_regression(half=0.5, before=1, power=1):
    off = 0.0
    for t in TIMES:
        means = half * (back(t, 0.4).mean - back(t, 0.4, -0.2).mean) ** 2 / back(t, 0.4).variance
        rest = (1 - ABAR[t - before]) * (1 - ABAR[t])
        factor = half * ABAR[t - 1] * BETA[t - 1] ** power / rest
        direct = kl_of_guess(t, -0.2)
        off = max(off, exact(means, direct), exact(factor * (X + 0.2) ** 2, direct))
    return off


@equation("02.13")
@mutated(half=1, sign=-1)
def test_its_weight_is_a_change_of_snr(half=0.5, sign=1):
    return max(exact(sign * half * change(t) * (X + 0.2) ** 2, kl_of_guess(t, -0.2)) for t in TIMES)


# ---- eps, x_0, v -----------------------------------------------------------------------------


def turned(t: int, x0: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t and its derivative in the angle, by autograd."""

    def x(angle: torch.Tensor) -> torch.Tensor:
        return angle.cos() * x0 + angle.sin() * eps

    angle = torch.acos(ABAR[t].sqrt())
    return x(angle), torch.autograd.functional.jacobian(x, angle)


@equation("02.14")
@mutated(sign=+1, swap=True)
def test_v_is_the_turned_axis(sign=-1, swap=False):
    x0, eps = drawn(2, 6)
    off = 0.0
    for t in range(1, T + 1):
        a, b = ABAR[t].sqrt(), (1 - ABAR[t]).sqrt()
        v = b * eps + sign * a * x0 if swap else a * eps + sign * b * x0
        off = max(off, exact(v, turned(t, x0, eps)[1]))
    return off


@equation("02.15")
@mutated(sign=+1, plus=-1)
def test_turning_back(sign=-1, plus=1):
    x0, eps = drawn(2, 6)
    off = 0.0
    for t in range(1, T + 1):
        (x, v), a, b = turned(t, x0, eps), ABAR[t].sqrt(), (1 - ABAR[t]).sqrt()
        off = max(off, exact(a * x + sign * b * v, x0), exact(b * x + plus * a * v, eps))
    return off


@equation("02.16")
@mutated(power=-1, one=0)
def test_errors_in_three_scales(power=1, one=1):
    x0, eps, wrong = drawn(3, 4, 3, 2, 2)
    off = 0.0
    for t in (1, 300, 1000):
        x, ratio = LINEAR.noise(x0, eps, t), float(LINEAR.abar[t] / (1 - LINEAR.abar[t]))
        e, x0_off, v = ((from_eps(LINEAR, kind, eps, x, t) - from_eps(LINEAR, kind, wrong, x, t))
                        .square().flatten(1).sum(1) for kind in ("eps", "x0", "v"))
        off = max(off, exact(e / x0_off / ratio**power, 1.0, 1e-8),
                  exact(v / x0_off / (one + ratio), 1.0, 1e-8))
    return off


# ---- weights ---------------------------------------------------------------------------------


def noise_error(t: int, guess: float) -> float:
    """Squared error of the noise that belongs to a guess of x_0, at any x_t."""
    return float(ABAR[t] / (1 - ABAR[t])) * (X - guess) ** 2


@equation("02.17")
@mutated(power=1, half=1, rest=0)
def test_ddpms_weight(power=2, half=0.5, rest=1):
    off = 0.0
    for t in TIMES:
        b, tilde = BETA[t - 1], back(t, 0.4).variance
        weight = half * b**power / (tilde * (1 - b) * (1 - ABAR[t]) ** rest)
        off = max(off, exact(weight * noise_error(t, -0.2), kl_of_guess(t, -0.2)))
    return off


@equation("02.18")
@mutated(sign=+1, half=1, shift=+1)
def test_the_weight_of_the_family(sign=-1, half=0.5, shift=-1):
    """Means of q_sigma from its definition; at sigma^2 = beta_tilde they are DDPM's."""
    off = 0.0
    for t in TIMES:
        a, s = ABAR[t], ABAR[t - 1]
        tilde = float(back(t, 0.4).variance)
        for var in (tilde, 0.3 * tilde, 0.9 * float(1 - s)):
            steps = [Normal(s.sqrt() * x0 + (1 - s - var).sqrt() * (0.4 - a.sqrt() * x0)
                            / (1 - a).sqrt(), doubles(var).sqrt()) for x0 in (X, -0.2)]
            if var == tilde:
                off = max(off, exact(steps[0].mean, back(t, 0.4).mean))
            root = (s * (1 - a) / a).sqrt() + sign * (1 - s + shift * var).sqrt()
            weight = half / var * root**2
            off = max(off, exact(weight * noise_error(t, -0.2), kl_divergence(*steps)))
    return off


@equation("02.19")
@mutated(power=1, first=0, gain=2)
def test_l_simple_is_a_mean_over_levels(power=2, first=1, gain=1):
    """Draws of t, x_0 and eps against exact second moments, for eps_theta = 0.8 x_t."""
    t = torch.randint(first, T + first, (N,), generator=torch.Generator().manual_seed(1))
    x0, eps = drawn(2, N, seed=2)
    x0 = 0.5 * x0
    x = ABAR[t].sqrt() * x0 + (1 - ABAR[t]).sqrt() * eps
    draws = gain * (eps - 0.8 * x).abs() ** power
    a = ABAR[1:]
    each = (1 - 0.8 * (1 - a).sqrt()) ** 2 + 0.8**2 * a * 0.25
    return sampled(draws, float(each.mean()))


@equation("02.20")
@mutated(root=1, sign=-1, spread=1)
def test_the_best_prediction_is_the_conditional_mean(root=0.5, sign=1, spread=2):
    """Against Bayes over a grid of x_0, and against the least weighted square over slopes."""
    s, off = 0.5, 0.0
    for t in (1, 3, 5):
        a = float(ABAR[t])
        slope = sign * (1 - a) ** root / (a * s**spread + 1 - a)
        eps = (0.9 - math.sqrt(a) * GRID) / math.sqrt(1 - a)
        weight = (normal(GRID, 0, s**2) + normal(0.9, math.sqrt(a) * GRID, 1 - a)).exp()
        off = max(off, exact(slope * 0.9, integral(weight * eps) / integral(weight), 1e-9))
        for loss_weight in (1.0, 1000.0):
            k = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
            loss = (1 - k * math.sqrt(1 - a)) ** 2 + k**2 * a * s**2
            pull = torch.autograd.grad(loss_weight * loss, k)[0] / loss_weight
            off = max(off, exact(pull, 0.0))
    return off


# ---- variances -------------------------------------------------------------------------------


@equation("02.21")
@mutated(power=1, sign=-1)
def test_the_true_step_back_is_wider(power=2, sign=1):
    off = 0.0
    for s2 in (0.01, 0.25, 1.0, 3.0):
        law = spread_over(s2)
        for t in TIMES:
            left = law.given(t, 0.4)
            factor = (ABAR[t - 1].sqrt() * BETA[t - 1] / (1 - ABAR[t])) ** power
            total = back(t, 0.4).variance + sign * factor * left.cov[0, 0]
            off = max(off, exact(total, left.cov[t - 1, t - 1]))
    return off


@equation("02.22")
@mutated(low=1.1, high=0.9)
def test_between_ddpms_two_variances(low=1, high=1):
    """Residual: how far E Var[x_{t-1} | x_t] lies outside, by Bayes on a grid of x_{t-1}."""
    worst, coarse = 0.0, GRID[4000:16001:200]  # |x_t| <= 8.4
    for centres, var in (((0.0,), 1.0), ((0.0,), 1e-4), ((-0.9, 0.9), 0.04), ((-1.0, 1.0), 1e-4)):
        for t in (2, T):
            a, b = ABAR[t - 1], BETA[t - 1]
            parts = [normal(GRID, a.sqrt() * m, a * var + 1 - a).exp() for m in centres]
            p = sum(parts) / len(parts)
            joint = p * normal(coarse[:, None], (1 - b).sqrt() * GRID, b).exp()  # (x_t, x_{t-1})
            mass = integral(joint)
            mean = integral(joint * GRID) / mass
            spread = integral(joint * GRID**2) / mass - mean**2
            average = (mass * spread)[mass > 1e-300].sum() / mass.sum()
            tilde = (1 - a) / (1 - ABAR[t]) * b
            worst = max(worst, float(low * tilde - average), float(average - high * b))
    return worst / 1e-6


@equation("02.23")
@mutated(sign=+1, one=0, half=1)
def test_a_term_with_another_variance(sign=-1, one=1, half=0.5):
    off = 0.0
    for t in TIMES:
        for ratio in (0.5, 1.0, 2.2):
            gain = change(t) * (X + 0.2) ** 2
            formula = half * ((1 + gain) / ratio - one + sign * math.log(1 / ratio))
            off = max(off, exact(formula, kl_of_guess(t, -0.2, ratio)))
    return off


@equation("02.24")
@mutated(sign=-1, half=1)
def test_the_best_variance(sign=1, half=0.5):
    """The KL there is the logarithm, and no neighbour has a smaller one."""
    off = 0.0
    for t in TIMES:
        gain = 0.4 * change(t) / change(2)  # an error that keeps 1 - gain positive
        guess = X - math.sqrt(gain / change(t))
        best = 1 + sign * gain
        here = kl_of_guess(t, guess, best)
        least = min(kl_of_guess(t, guess, best * k) for k in (0.98, 0.999, 1.001, 1.02))
        off = max(off, exact(here, half * math.log1p(gain)), float(here - least) / 1e-10,
                  float(here - gain / 2) / 1e-10)
    return off


# ---- the limit and the gold test -------------------------------------------------------------


@equation("02.25")
@mutated(half=1, sign=-1)
def test_the_sum_becomes_an_integral(half=0.5, sign=1):
    """100,000 levels between two SNRs, evenly in log SNR, whatever the schedule was."""
    s2, (low, high) = 0.25, (4e-5, 1e4)
    levels = torch.logspace(math.log10(high), math.log10(low), 100_001, dtype=torch.float64)
    error = s2 / (1 + s2 * levels)
    total = ((levels[:-1] - levels[1:]) / 2 * error[1:]).sum()
    closed = half * math.log((1 + s2 * high) / (1 + sign * s2 * low))
    refined = torch.trapezoid(error * levels, levels.log()).abs() / 2
    return max(exact(closed, total, 1e-3), exact(closed, refined, 1e-7))


@equation("02.26")
@mutated(half=1, scale=2, prior=0)
def test_gold(half=0.5, scale=1, prior=1):
    """The parts against the package's chain in expectation, and their sum against the entropy."""
    node, mass = (torch.from_numpy(k) for k in np.polynomial.hermite_e.hermegauss(8))
    off = 0.0
    for s2 in (0.25, 2.0):
        top = prior * half * math.log(1 + s2 * snr(T))
        inner = [half * math.log((1 + s2 * snr(t - 1)) / (1 + s2 * snr(t))) for t in TIMES]
        bottom = half * math.log(2 * math.pi * math.e * s2 / (1 + scale * s2 * snr(1)))
        bound = Chain.diffusion(SHORT, s2).telescoped(node * math.sqrt(s2))
        weight = mass / mass.sum()
        entropy = Normal(0.0, doubles(math.sqrt(s2))).entropy()
        off = max(off, exact(top, weight @ bound.prior), exact(inner, bound.inner @ weight),
                  exact(bottom, -weight @ bound.reconstruction),
                  exact(top + sum(inner) + bottom, entropy))
    return off


# ---- pixels ----------------------------------------------------------------------------------


def mean_mass(x0: float, sd: float, bin: float, sign: int) -> torch.Tensor:
    """E log P(x_0 | x_1) by the two distribution functions, over a grid of x_1."""
    phi, mean = Normal(0.0, doubles(1.0)).cdf, GUESS * GRID
    high = 1.0 if x0 == 1 else phi((x0 + bin / 255 - mean) / sd)
    low = 0.0 if x0 == -1 else phi((x0 - sign * bin / 255 - mean) / sd)
    return integral(rising((1 - BETA).sqrt(), BETA, x0).only(1).log_prob(GRID[:, None]).exp()
                    * (high - low).clamp(min=1e-300).log())


@equation("02.27")
@mutated(sign=-1, bin=2)
def test_the_decoder_term(sign=1, bin=1):
    """Against the density integrated over the bin, the outer ones to infinity."""
    sd, off = 1.5, 0.0
    for k in (0, 100, 255):
        x0 = -1 + 2 * k / 255
        ends = (-20.0 if k == 0 else x0 - 1 / 255), (20.0 if k == 255 else x0 + 1 / 255)
        fine = torch.linspace(*ends, 4001, dtype=torch.float64)
        coarse = GRID[8000:12001:20]  # x_1 in -2.8 .. 2.8
        weight = normal(coarse, math.sqrt(1 - BETA[0]) * x0, BETA[0]).exp()
        inside = torch.trapezoid(normal(fine, GUESS * coarse[:, None], sd**2).exp(), fine)
        direct = (weight * inside.log()).sum() / weight.sum()
        off = max(off, exact(mean_mass(x0, sd, bin, sign), direct, 1e-5))
    return off


@equation("02.28")
@mutated(base=10, prior=0)
def test_bits_per_dim_counts_all_three_parts(base=2, prior=1):
    """Nats of the package against the same expectations in logarithms to base 2, on a grid."""
    x0, guess, t = -1 + 2 * 100 / 255, 0.1, 2
    picture, believed = torch.full((1, 4), x0).double(), torch.full((1, 4), guess).double()
    nats = prior * elbo.prior(SHORT, picture) + elbo.matching(SHORT, picture, believed, t, 1)
    nats = nats - elbo.discretised(picture, believed, 0.3).sum(1)

    def divergence(q: Normal, p: Normal) -> torch.Tensor:
        ratio = (q.log_prob(GRID) - p.log_prob(GRID)) / math.log(2)
        return integral(q.log_prob(GRID).exp() * ratio)

    top = divergence(Normal(ABAR[T].sqrt() * x0, (1 - ABAR[T]).sqrt()), Normal(0.0, 1.0))
    inner = divergence(back(t, 0.4, x0), back(t, 0.4, guess))
    edges = Normal(doubles(guess), doubles(0.3)).cdf(doubles(x0 - 1 / 255, x0 + 1 / 255))
    return exact(nats / (4 * math.log(base)), top + inner - torch.log2(edges[1] - edges[0]), 1e-7)


@equation("02.29")
@mutated(root=1, mean=0, power=2)
def test_the_best_linear_predictor(root=0.5, mean=1, power=1):
    """Against conditioning in the joint covariance of (x_0, x_t)."""
    factor, mu, x = drawn(4, 4), drawn(4, seed=1), drawn(4, seed=2)
    cov = factor @ factor.T / 4
    values, vectors = torch.linalg.eigh(cov)
    off = 0.0
    for a in ABAR[1:]:
        gain = a**root * values / (a * values**power + 1 - a)
        guess = mean * mu + vectors @ (gain * (vectors.T @ (x - a.sqrt() * mu)))
        noisy = a * cov + (1 - a) * torch.eye(4).double()
        direct = mu + a.sqrt() * cov @ torch.linalg.solve(noisy, x - a.sqrt() * mu)
        off = max(off, exact(guess, direct))
    return off
