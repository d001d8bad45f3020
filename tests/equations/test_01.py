"""Numeric twins of lecture 01: the Markov hierarchical VAE and its bound.

Expectations under Gaussians are integrals over a fine grid in one dimension, and dense covariance
matrices for chains; neither knows the formulas under test.
"""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from coursekit.diffusion import elbo
from coursekit.diffusion.mhvae import Chain

from . import exact, mutated, sampled
from .gaussian import GRID, dense_bound, doubles, falling, integral, normal, rising

equation = pytest.mark.equation


# ---- one latent: z ~ N(0, V), x | z ~ N(C z, S); a q that is not the posterior ---------------

C, S, V, X = 0.8, 0.36, 1.7, 1.1
MEAN, SD = 0.3, 0.5


def mean_q(values: torch.Tensor, mean: float = MEAN, sd: float = SD) -> torch.Tensor:
    return integral(normal(GRID, mean, sd**2).exp() * values)


EVIDENCE = normal(X, 0, C**2 * V + S)  # a sum of independent Gaussians
JOINT = normal(X, C * GRID, S) + normal(GRID, 0, V)  # log p(x, z)
LOG_Q = normal(GRID, MEAN, SD**2)
POSTERIOR = Normal(doubles(C * V * X / (C**2 * V + S)), doubles(V * S / (C**2 * V + S)).sqrt())


@equation("01.1")
@mutated(prior=0, decoder=2)
def test_evidence_is_an_integral(prior=1, decoder=1):
    density = decoder * normal(X, C * GRID, S) + prior * normal(GRID, 0, V)
    return exact(integral(density.exp()).log(), EVIDENCE)


@equation("01.2")
@mutated(sign=+1)
def test_evidence_is_an_expectation_under_any_q(sign=-1):
    return exact(integral((LOG_Q + JOINT + sign * LOG_Q).exp()).log(), EVIDENCE)


@equation("01.3")
@mutated(sign=-1, entropy=3)
def test_no_q_lifts_the_bound_above_the_evidence(sign=1, entropy=1):
    """The residual is the largest excess over log p, for 35 choices of q, posterior included."""
    excess = []
    for mean in (-1.0, 0.0, float(POSTERIOR.mean), 1.0, 2.0):
        for sd in (0.1, 0.3, float(POSTERIOR.stddev), 0.5, 0.8, 1.2, 2.0):
            ratio = JOINT - entropy * normal(GRID, mean, sd**2)
            excess.append(sign * float(mean_q(ratio, mean, sd) - EVIDENCE))
    return max(0.0, max(excess)) / 1e-10


@equation("01.4")
@mutated(sign=-1, swap=True)
def test_the_gap_is_the_kl_to_the_posterior(sign=1, swap=False):
    q = Normal(doubles(MEAN), doubles(SD))
    pair = (POSTERIOR, q) if swap else (q, POSTERIOR)
    return exact(EVIDENCE - mean_q(JOINT - LOG_Q), sign * kl_divergence(*pair))


@equation("01.5")
@mutated(sign=+1, one=0, half=1, shift=0)
def test_kl_of_two_gaussians(sign=-1, one=1, half=0.5, shift=1):
    ratio = SD**2 / V
    square = shift * (MEAN - 0.9) ** 2
    formula = half * (ratio - one + sign * math.log(ratio) + square / V)
    return exact(formula, mean_q(LOG_Q - normal(GRID, 0.9, V)))


@equation("01.6")
@mutated(sign=+1)
def test_reconstruction_minus_distance_to_the_prior(sign=-1):
    distance = kl_divergence(Normal(doubles(MEAN), doubles(SD)), Normal(0.0, doubles(V).sqrt()))
    split = mean_q(normal(X, C * GRID, S)) + sign * distance
    return exact(split, mean_q(JOINT - LOG_Q))


def slope(name: str) -> float:
    """Derivative of E_q log p(x, z) with respect to q's mean or sd, by central differences."""
    h = 1e-4
    ends = [mean_q(JOINT, **{"mean": MEAN, "sd": SD, name: at})
            for at in ({"mean": MEAN, "sd": SD}[name] + step for step in (h, -h))]
    return float(ends[0] - ends[1]) / (2 * h)


INNER = C * (X - C * GRID) / S - GRID / V  # derivative of log p(x, z) in z


@equation("01.7")
@mutated(sign=-1, noise=0)
def test_the_gradient_goes_through_the_draw(sign=1, noise=1):
    eps = (GRID - MEAN) / SD
    both = torch.stack([mean_q(INNER), sign * mean_q(INNER * eps**noise)])
    return exact(both, doubles(slope("mean"), slope("sd")), 1e-6)


@equation("01.8")
@mutated(sign=-1, power=1)
def test_the_gradient_of_the_density(sign=1, power=2):
    return exact(sign * mean_q(JOINT * (GRID - MEAN) / SD**power), slope("mean"), 1e-6)


# ---- a chain of four levels with a decoder at random, by dense matrices ----------------------

A, Q = doubles(0.9, 0.7, 1.1, 0.5), doubles(0.3, 0.5, 0.2, 0.8)
D, P, PRIOR = doubles(0.8, -0.2, 0.6, 0.9), doubles(0.4, 0.3, 0.9, 0.5), 1.3
T = 4
WALKS = torch.randn(7, T, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WALKS = torch.cat([torch.full((7, 1), X, dtype=torch.float64), WALKS], 1)  # z_0 .. z_T


LEVELS = range(1, T + 1)
UP, DOWN = rising(A, Q, X), falling(D, P, PRIOR)
ENCODER = UP.only(*LEVELS)
BOUND, LOG_P = dense_bound(UP, DOWN), DOWN.only(0).log_prob(doubles(X))


def pick(**weights: float) -> torch.Tensor:
    """A vector of weights: pick(z2=1, z3=-0.5)."""
    vector = torch.zeros(T + 1).double()
    for name, weight in weights.items():
        vector[int(name[1:])] = weight
    return vector


def encoder_log(t: int) -> torch.Tensor:
    """E log q(z_t | z_{t-1})."""
    return UP.mean_log(pick(**{f"z{t}": 1, f"z{t - 1}": -A[t - 1]}), float(Q[t - 1]))


def decoder_log(t: int) -> torch.Tensor:
    """E log p(z_{t-1} | z_t)."""
    return UP.mean_log(pick(**{f"z{t - 1}": 1, f"z{t}": -D[t - 1]}), float(P[t - 1]))


PRIOR_LOG = UP.mean_log(pick(z4=1), PRIOR)


@equation("01.9")
@mutated(slope=-1, spread=2)
def test_the_encoder_is_a_product_of_steps(slope=1, spread=1):
    steps = sum(normal(WALKS[:, t], slope * A[t - 1] * WALKS[:, t - 1], spread * Q[t - 1])
                for t in LEVELS)
    return exact(steps, ENCODER.log_prob(WALKS[:, 1:]))


@equation("01.10")
@mutated(slope=-1, first=2)
def test_the_decoder_is_a_prior_and_a_product_of_steps(slope=1, first=1):
    steps = sum(normal(WALKS[:, t - 1], slope * D[t - 1] * WALKS[:, t], P[t - 1])
                for t in range(first, T + 1))
    return exact(normal(WALKS[:, T], 0, PRIOR) + steps, DOWN.only(*range(T + 1)).log_prob(WALKS))


@equation("01.11")
@mutated(sign=+1, prior=0)
def test_the_bound_of_a_hierarchy(sign=-1, prior=1):
    ratio = prior * PRIOR_LOG + sum(decoder_log(t) + sign * encoder_log(t) for t in LEVELS)
    return max(exact(ratio, BOUND), float(ratio - LOG_P) / 1e-10)


@equation("01.12")
@mutated(sign=-1, swap=True)
def test_the_gap_of_a_hierarchy(sign=1, swap=False):
    pair = (ENCODER, DOWN.given(0, X).only(*LEVELS))
    return exact(LOG_P - BOUND, sign * kl_divergence(*(pair[::-1] if swap else pair)))


def top_kl() -> torch.Tensor:
    """E KL(q(z_T | z_{T-1}) || p(z_T)), over a grid of z_{T-1}."""
    q = Normal(A[-1] * GRID, Q[-1].sqrt())
    divergence = kl_divergence(q, Normal(0.0, doubles(PRIOR).sqrt()))
    return integral(UP.only(T - 1).log_prob(GRID[:, None]).exp() * divergence)


@equation("01.13")
@mutated(sign=+1, top=0, first=2)
def test_the_bound_before_bayes(sign=-1, top=1, first=1):
    inner = sum(encoder_log(t) - decoder_log(t + 1) for t in range(first, T))
    return exact(decoder_log(1) - top * top_kl() + sign * inner, BOUND)


@equation("01.14")
@mutated(sign=-1, half=0.5)
def test_what_a_fresh_draw_costs(sign=1, half=1):
    """Terms with z_t drawn afresh, so independent of z_{t+1} once z_{t-1} is known."""
    printed = decoder_log(1) - top_kl()
    for t in range(1, T):
        both = pick(**{f"z{t - 1}": A[t - 1], f"z{t + 1}": -D[t]})
        square = (both @ UP.mean) ** 2 + both @ UP.cov @ both + Q[t - 1]
        log_p = -((2 * math.pi * P[t]).log() + square / P[t]) / 2
        printed = printed - (encoder_log(t) - log_p)
    excess = half * sum(A[t] * D[t] * Q[t - 1] / P[t] for t in range(1, T))
    return exact(BOUND - printed, sign * excess)


def back(t: int, value: float) -> MultivariateNormal:
    """q(z_{t-1} | z_t = value, x), from the joint covariance."""
    return UP.given(t, value).only(t - 1)


def back_log(t: int) -> torch.Tensor:
    """log q(z_{t-1} | z_t, x) on the walks."""
    return torch.stack([back(t, float(z[t])).log_prob(z[t - 1:t]) for z in WALKS])


def level_log(t: int) -> torch.Tensor:
    """log q(z_t | x) on the walks."""
    return UP.only(t).log_prob(WALKS[:, t:t + 1])


def step_log(t: int) -> torch.Tensor:
    """log q(z_t | z_{t-1}) on the walks."""
    return normal(WALKS[:, t], A[t - 1] * WALKS[:, t - 1], Q[t - 1])


@equation("01.15")
@mutated(sign=+1, numerator=0)
def test_bayes_turns_a_step_round(sign=-1, numerator=1):
    return max(exact(back_log(t) + numerator * level_log(t) + sign * level_log(t - 1), step_log(t))
               for t in range(2, T + 1))


@equation("01.16")
@mutated(sign=+1, first=2)
def test_the_marginals_telescope(sign=-1, first=1):
    """Left the fractions as Bayes gives them: a step over the step back."""
    fractions = sum(step_log(t) - back_log(t) for t in range(2, T + 1))
    return exact(fractions, level_log(T) + sign * level_log(first))


@equation("01.17")
@mutated(top=T - 1, first=3)
def test_the_encoder_from_the_top_down(top=T, first=2):
    steps = sum(back_log(t) for t in range(first, T + 1))
    return exact(level_log(top) + steps, ENCODER.log_prob(WALKS[:, 1:]))


def matching(t: int) -> torch.Tensor:
    """E KL(q(z_{t-1} | z_t, x) || p(z_{t-1} | z_t)), over a grid of z_t."""
    ends = [back(t, value) for value in (0.0, 1.0)]  # the mean is linear in z_t
    mean = ends[0].mean + (ends[1].mean - ends[0].mean) * GRID
    q = Normal(mean, ends[0].covariance_matrix[0].sqrt())
    divergence = kl_divergence(q, Normal(D[t - 1] * GRID, P[t - 1].sqrt()))
    return integral(UP.only(t).log_prob(GRID[:, None]).exp() * divergence)


@equation("01.18")
@mutated(prior=+1, inner=+1, first=3)
def test_the_telescoped_bound(prior=-1, inner=-1, first=2):
    distance = kl_divergence(Normal(UP.mean[T], UP.cov[T, T].sqrt()),
                             Normal(0.0, doubles(PRIOR).sqrt()))
    terms = sum(matching(t) for t in range(first, T + 1))
    return exact(decoder_log(1) + prior * distance + inner * terms, BOUND)


# ---- closed forms of the linear-Gaussian chain -----------------------------------------------


N = 30_000


@equation("01.19")
@mutated(slope=-1, root=1)
def test_steps_of_the_chain_as_draws(slope=1, root=0.5):
    """A walk up of draws a z + sqrt(q) n, and one down, have the dense laws."""
    noise = torch.randn(2, T + 1, N, generator=torch.Generator().manual_seed(1)).double()
    rise, fall = [torch.full((N,), X, dtype=torch.float64)], [PRIOR**root * noise[1, T]]
    for t in range(T):
        rise.append(slope * A[t] * rise[-1] + Q[t] ** root * noise[0, t])
        fall.append(slope * D[T - 1 - t] * fall[-1] + P[T - 1 - t] ** root * noise[1, t])
    residuals = []
    for walk, law in ((rise[1:], UP), (fall[::-1], DOWN)):
        z = torch.stack(walk, 1)  # (n, levels)
        mean, cov = law.mean[-z.shape[1]:], law.cov[-z.shape[1]:, -z.shape[1]:]
        centred = z - mean
        products = centred[:, :, None] * centred[:, None, :]
        residuals += [sampled(z, mean), sampled(products, cov)]
    return max(residuals)


def levels(power: int = 2, sign: int = 1) -> tuple[list[float], list[float]]:
    m, w = [1.0], [0.0]
    for a, q in zip(A.tolist(), Q.tolist(), strict=True):
        m.append(a * m[-1])
        w.append(a**power * w[-1] + sign * q)
    return m, w


@equation("01.20")
@mutated(power=1, sign=-1)
def test_marginals_by_recursion(power=2, sign=1):
    m, w = levels(power, sign)
    return max(exact(doubles(*m) * X, UP.mean), exact(doubles(*w), UP.cov.diagonal()))


@equation("01.21")
@mutated(sign=-1, swap=True, over=0)
def test_the_step_back(sign=1, swap=False, over=1):
    m, w = levels()
    off = 0.0
    for t in range(2, T + 1):
        a, q = float(A[t - 1]), float(Q[t - 1])
        near, far = (q, w[t - 1]) if swap else (w[t - 1], q)
        mean = (a * near * 0.7 + sign * far * m[t - 1] * X) / w[t]
        law = back(t, 0.7)
        var = w[t - 1] * q / w[t] ** over
        off = max(off, exact(mean, law.mean[0]), exact(var, law.covariance_matrix[0, 0]))
    return off


@equation("01.22")
@mutated(sign=+1, spread=0, cross=0)
def test_the_expected_square(sign=-1, spread=1, cross=1):
    m, w = levels()
    off = 0.0
    for t in range(2, T + 1):
        ends = [float(back(t, value).mean) for value in (0.0, 1.0)]  # g x and k + g x
        k, c = ends[1] - ends[0], float(D[t - 1])
        density = UP.only(t).log_prob(GRID[:, None]).exp()
        direct = integral(density * (k * GRID + ends[0] - c * GRID) ** 2)
        squares = ((k + sign * c) * m[t] * cross + ends[0] / X) ** 2 * X**2
        off = max(off, exact(squares + spread * (k + sign * c) ** 2 * w[t], direct))
    return off


@equation("01.23")
@mutated(power=0, slope=0.9, prior=2)
def test_the_decoder_that_inverts_the_encoder(power=1, slope=1, prior=1):
    """Both joint covariances agree, and then the bound is the evidence."""
    data = 0.6
    v = [data]
    for a, q in zip(A.tolist(), Q.tolist(), strict=True):
        v.append(a**2 * v[-1] + q)
    v = doubles(*v)
    c, p = slope * A * v[:-1] / v[1:], v[:-1] * Q / v[1:] ** power
    chain, x = Chain(A, Q, c, p, prior * float(v[-1])), doubles(-2.0, 0.0, 1.1)
    return max(exact(falling(c, p, prior * float(v[-1])).cov, rising(A, Q, 0.0, data).cov),
               exact(chain.telescoped(x).total, normal(x, 0, data)))


@equation("01.24")
@mutated(sign=-1, rest=0)
def test_total_variance_of_a_log_ratio(sign=1, rest=1):
    """By Gauss-Hermite nodes, exact as the log ratio is a polynomial of low degree; t = 3."""
    node, weight = (torch.from_numpy(k) for k in np.polynomial.hermite_e.hermegauss(12))
    weight = weight / weight.sum()
    z = UP.mean[3] + UP.cov[3, 3].sqrt() * node  # (12,)
    ends = [float(back(3, value).mean) for value in (0.0, 1.0)]
    sd = back(3, 0.0).covariance_matrix[0].sqrt()
    mean = (ends[0] + (ends[1] - ends[0]) * z)[:, None]
    below = mean + sd * node  # (12, 12): z_2 for each z_3
    ratio = normal(below, mean, sd**2) - normal(below, D[2] * z[:, None], P[2])
    total = weight @ ((ratio - weight @ ratio @ weight) ** 2) @ weight
    k = kl_divergence(Normal(mean[:, 0], sd), Normal(D[2] * z, P[2].sqrt()))
    between = weight @ (k - weight @ k) ** 2
    within = weight @ ((ratio - k[:, None]) ** 2) @ weight
    return exact(total, between + sign * rest * within)


# ---- pixels ----------------------------------------------------------------------------------


@equation("01.25")
@mutated(bin=2, sign=-1, open_ends=False)
def test_the_mass_of_a_bin(bin=1, sign=1, open_ends=True):
    """Against the density, integrated over each bin; the outer bins run on."""
    x, sd, delta = torch.linspace(-1, 1, 256, dtype=torch.float64), 0.3, 1 / 255
    phi = Normal(0.0, doubles(1.0)).cdf
    off = 0.0
    for mean in (-0.9, 0.2, 0.99):
        mass = phi((x + bin * delta - mean) / sd) - phi((x - sign * bin * delta - mean) / sd)
        if open_ends:
            mass[0] = phi((x[0] + bin * delta - mean) / sd)
            mass[-1] = 1 - phi((x[-1] - sign * bin * delta - mean) / sd)
        edges = torch.cat([doubles(-4.0), (x[1:] + x[:-1]) / 2, doubles(4.0)])
        fine = torch.linspace(0, 1, 501, dtype=torch.float64)
        inside = edges[:-1, None] + edges.diff()[:, None] * fine  # (256, 501)
        direct = torch.trapezoid(normal(inside, mean, sd**2).exp(), inside)
        off = max(off, exact(mass, direct, 1e-5))
    return off


@equation("01.26")
@mutated(base=10, sign=+1)
def test_bits_per_dim_is_a_code_length(base=2, sign=-1):
    """Against log2 of the probabilities of five values."""
    probabilities = [1 / 256, 0.5, 0.25, 1 / 8, 1.0]
    nats = sign * sum(map(math.log, probabilities))
    length = sum(-math.log2(p) for p in probabilities) / 5
    package = elbo.bits_per_dim(-sum(map(math.log, probabilities)), 5)
    return max(exact(nats / (5 * math.log(base)), length), exact(package, length))
