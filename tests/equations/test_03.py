"""Numeric twins of lecture 03: best predictor, losses, embedding, way back, average, network.

The toy's conditional means come from sums over a fine grid of x_0; training, sampling and layers
are the package's or another library's.
"""

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coursekit.diffusion import elbo
from coursekit.diffusion.sample import ddpm, last
from coursekit.diffusion.schedule import Schedule
from coursekit.diffusion.train import train
from coursekit.nets import unet

from . import exact, mutated

equation = pytest.mark.equation
LINEAR, COSINE = Schedule.linear(), Schedule.cosine()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# ---- the toy: everything about eps given x_t, by brute force over x_0 ------------------------

CENTRES, WEIGHTS = torch.tensor([-0.8, 0.1, 0.9]).double(), torch.tensor([0.5, 0.2, 0.3]).double()
SPREAD = 0.12
GRID = torch.linspace(-2.5, 2.5, 20_001, dtype=torch.float64)
POINTS = torch.linspace(-2, 2, 9, dtype=torch.float64)
DENSITY = (WEIGHTS * torch.exp(-(((GRID[:, None] - CENTRES) / SPREAD) ** 2) / 2)).sum(1)


def given(x, level):
    """Weights (n, grid) of x_0 given x_t = x, and the noise that each x_0 implies."""
    eps = (x[:, None] - math.sqrt(level) * GRID) / math.sqrt(1 - level)
    return DENSITY * torch.exp(-(eps**2) / 2), eps


def mean_eps(x, level):
    weight, eps = given(x, level)
    return (weight * eps).sum(1) / weight.sum(1)


@equation("03.1")
@mutated(signal=1.4, noise=1.2)
def test_one_jump_has_the_law_of_the_chain(signal=1, noise=1):
    t, n, x = 300, 400_000, 0.7
    for s in range(0, t, 20):  # the chain, twenty steps at once
        kept = LINEAR.level(s + 20) / LINEAR.level(s)
        x = math.sqrt(kept) * x + math.sqrt(1 - kept) * normal(n, seed=s)
    mean, var = signal * math.sqrt(LINEAR.level(t)) * 0.7, noise**2 * (1 - LINEAR.level(t))
    errors = (x.mean() - mean) / math.sqrt(var / n), (x.var() / var - 1) / math.sqrt(2 / n)
    return float(torch.stack(errors).abs().max()) / 5


@equation("03.2")
@mutated(sign=-1, factor=1.5)
def test_floor_and_distance(sign=1, factor=1):
    level = COSINE.level(500)
    weight, eps = given(POINTS, level)
    share = weight / weight.sum(1, keepdim=True)
    best, guess = mean_eps(POINTS, level), torch.sin(3 * POINTS)
    floor = (share * (eps - best[:, None]) ** 2).sum(1)
    loss = (share * (eps - guess[:, None]) ** 2).sum(1)
    return exact(floor + sign * factor * (best - guess) ** 2, loss)


@equation("03.3")
@mutated(sign=+1, power=1)
def test_the_best_eps_is_a_slope(sign=-1, power=0.5):
    level, x = COSINE.level(400), POINTS.clone().requires_grad_()
    log_p = given(x, level)[0].sum(1).log()
    slope = torch.autograd.grad(log_p.sum(), x)[0]
    return exact(sign * (1 - level) ** power * slope, mean_eps(POINTS, level), 1e-9)


@equation("03.4")
@mutated(sign=+1, half=1, data=0)
def test_the_best_eps_of_a_mixture(sign=-1, half=0.5, data=1):
    level = COSINE.level(600)
    var = data * level * SPREAD**2 + 1 - level
    gap = POINTS[:, None] + sign * math.sqrt(level) * CENTRES
    share = (WEIGHTS.log() - half * gap**2 / var).softmax(1)
    said = math.sqrt(1 - level) * (share * gap).sum(1) / var
    return exact(said, mean_eps(POINTS, level), 1e-9)


# ---- the loss --------------------------------------------------------------------------------


@equation("03.5")
@mutated(half=1, before=0, power=1)
def test_weight_of_a_term(half=0.5, before=1, power=2):
    t = 40
    x0, eps, guess = normal(3, 5), normal(3, 5, seed=1), normal(3, 5, seed=2)
    x0_hat = LINEAR.denoise(LINEAR.noise(x0, eps, t), guess, t)
    term = elbo.matching(LINEAR, x0, x0_hat, t, t - 1)  # a KL of two Gaussians
    beta, alpha = LINEAR.beta(t), 1 - LINEAR.beta(t)
    square = (eps - guess).square().sum(1)
    first = half * beta**power / (LINEAR.beta_tilde(t) * alpha * (1 - LINEAR.level(t)))
    second = half * beta / (alpha * (1 - LINEAR.level(t - before)))
    return max(exact(first * square, term, 1e-9), exact(second * square, term, 1e-9))


class Perfect(nn.Module):
    """The best eps of N(0, var) data, with an idle weight for the optimiser."""

    def __init__(self, var):
        super().__init__()
        self.var, self.idle = var, nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        level = COSINE.abar[t].float()[:, None]
        return (1 - level).sqrt() * x / (level * self.var + 1 - level) + 0 * self.idle


@cache
def reported(var, n, steps):
    """Mean of the losses that `train` reports for the best predictor."""

    def batches(k):
        return var**0.5 * torch.randn(n, 1, generator=seeded(k))

    run = train(Perfect(var), batches, COSINE, steps=steps, prediction="eps", ema=0.0)
    return math.fsum(update.loss for update in run) / steps


@equation("03.6")
@mutated(first=401, norm=1)
def test_simple_loss(first=1, norm=2):
    """What `train` reports, against the floor in closed form."""
    var, n, steps = 0.05, 16_384, 48
    levels = COSINE.abar[first:]
    floor = levels * var / (levels * var + 1 - levels)  # Var(eps | x_t)
    if norm == 1:  # mean absolute value of a Gaussian
        floor = (2 * floor / math.pi).sqrt()
    error = 0.55 / math.sqrt(n * steps)  # the deviation of one squared error is 0.52
    return abs(reported(var, n, steps) - float(floor.mean())) / (5 * error)


# ---- eps, x_0 and v --------------------------------------------------------------------------


@equation("03.7")
@mutated(sign=+1, swap=True)
def test_v_is_the_velocity_on_the_circle(sign=-1, swap=False):
    x0, eps, level = normal(4), normal(4, seed=1), COSINE.level(300)
    angle = torch.tensor(math.acos(math.sqrt(level)), dtype=torch.float64)
    velocity = torch.autograd.functional.jacobian(lambda p: p.cos() * x0 + p.sin() * eps, angle)
    a, b = math.sqrt(level), math.sqrt(1 - level)
    a, b = (b, a) if swap else (a, b)
    return exact(a * eps + sign * b * x0, velocity)


@equation("03.8")
@mutated(minus=+1, plus=-1)
def test_the_rotation_undone(minus=-1, plus=1):
    x_t, v, level = normal(4), normal(4, seed=1), COSINE.level(700)
    a, b = math.sqrt(level), math.sqrt(1 - level)
    system = torch.tensor([[a, b], [-b, a]], dtype=torch.float64)  # (x_0, eps) -> (x_t, v)
    found = torch.linalg.solve(system, torch.stack([x_t, v]))
    return exact(torch.stack([a * x_t + minus * b * v, b * x_t + plus * a * v]), found)


@equation("03.9")
@mutated(swap=True)
def test_three_losses_are_one(swap=False):
    x0, eps, wrong, t = normal(6), normal(6, seed=1), normal(6, seed=2), 250
    x0_hat = COSINE.denoise(COSINE.noise(x0, eps, t), eps + wrong, t)
    level = COSINE.level(t)
    a, b = math.sqrt(level), math.sqrt(1 - level)
    of_v = ((a * eps - b * x0) - (a * (eps + wrong) - b * x0_hat)).square().sum()
    low, high = (level, 1 - level) if swap else (1 - level, level)
    said = torch.stack([(x0 - x0_hat).square().sum() / low, wrong.square().sum() / high])
    return exact(said, of_v.expand(2))


# ---- time ------------------------------------------------------------------------------------


@equation("03.10")
@mutated(sign=+1, base=1000)
def test_clocks(sign=-1, base=10_000):
    from diffusers.models.embeddings import get_timestep_embedding

    t, half = torch.tensor([0, 1, 9, 250, 1000]), 16
    angle = t.double()[:, None] * float(base) ** (sign * torch.arange(half).double() / half)
    theirs = get_timestep_embedding(t, 2 * half, flip_sin_to_cos=True, downscale_freq_shift=0)
    return exact(torch.cat([angle.cos(), angle.sin()], 1), theirs, 1e-3)  # float32 of t up to 1000


@equation("03.11")
@mutated(sign=+1)
def test_the_inner_product_knows_the_distance_only(sign=-1):
    t, s = torch.tensor([3, 40, 700]), torch.tensor([5, 10, 500])
    inner = (unet.time_embedding(t, 64) * unet.time_embedding(s, 64)).sum(1)
    rates = 10_000.0 ** (-torch.arange(32).double() / 32)
    return exact(torch.cos(rates * (t + sign * s)[:, None]).sum(1), inner, 1e-3)


# ---- the way back ----------------------------------------------------------------------------


@equation("03.12")
@mutated(swap=True, variance=1.1)
def test_the_posterior_is_a_conditional_gaussian(swap=False, variance=1):
    t, x0, x_t = 30, 0.6, -0.4
    beta, now, before = LINEAR.beta(t), LINEAR.level(t), LINEAR.level(t - 1)
    # x_{t-1} and x_t given x_0 are jointly Gaussian: condition by hand
    cov = math.sqrt(1 - beta) * (1 - before)
    mean = math.sqrt(before) * x0 + cov / (1 - now) * (x_t - math.sqrt(now) * x0)
    first = math.sqrt(before) * beta / (1 - now)
    second = math.sqrt(1 - beta) * (1 - before) / (1 - now)
    first, second = (second, first) if swap else (first, second)
    said = first * x0 + second * x_t, variance * (1 - before) / (1 - now) * beta
    return exact(said, (mean, 1 - before - cov**2 / (1 - now)))


@equation("03.13")
@mutated(sign=+1, power=1, noise=1.1)
def test_algorithm_2(sign=-1, power=0.5, noise=1):
    x = normal(7, 2)

    def eps(x, t):
        return torch.tanh(2 * x)

    off = []
    for t, last_step in ((60, False), (1, True)):
        there = last(ddpm(eps, LINEAR, x, [t, t - 1], generator=seeded(5))).x
        z = torch.randn(x.shape, generator=seeded(5), dtype=torch.float64) * (not last_step)
        share = LINEAR.beta(t) / (1 - LINEAR.level(t)) ** power
        mean = (x + sign * share * eps(x, t)) / math.sqrt(1 - LINEAR.beta(t))
        off.append(exact(mean + noise * math.sqrt(LINEAR.beta_tilde(t)) * z, there))
    return max(off)


@equation("03.14")
@mutated(sign=-1, power=1)
def test_variance_of_the_exact_step_back(sign=1, power=2):
    t, x_t = 60, torch.tensor([0.45], dtype=torch.float64)
    beta, now, before = LINEAR.beta(t), LINEAR.level(t), LINEAR.level(t - 1)

    def variance(weight, at):
        mean = (weight * at).sum() / weight.sum()
        return (weight * (at - mean) ** 2).sum() / weight.sum()

    # q(x_{t-1} | x_t) on a grid of its own: the marginal at t-1 times one step up
    y = torch.linspace(-1.5, 2.5, 4001, dtype=torch.float64)
    up = torch.exp(-((x_t - math.sqrt(1 - beta) * y) ** 2) / (2 * beta))
    found = variance(given(y, before)[0].sum(1) * up, y)
    gain = (math.sqrt(before) * beta / (1 - now)) ** power
    said = LINEAR.beta_tilde(t) + sign * gain * variance(given(x_t, now)[0][0], GRID)
    return exact(said / found, 1, 1e-6)


# ---- the average -----------------------------------------------------------------------------


@equation("03.15")
@mutated(lag=1, first=0)
def test_the_average_unrolled(lag=0, first=1):
    d, k, weights = 0.8, 12, normal(12)
    average = torch.tensor(2.0, dtype=torch.float64)
    for now in weights:
        average = torch.lerp(now, average, d)
    fall = d ** (k - torch.arange(1, k + 1).double() + lag)
    return exact(first * d**k * 2.0 + (1 - d) * (fall * weights).sum(), average)


@equation("03.16")
@mutated(sign=+1, power=0.5)
def test_what_is_left_of_the_rattle(sign=-1, power=1):
    d, n, average = 0.9, 40_000, 0.0
    for k in range(120):
        average = d * average + (1 - d) * 1.5 * normal(n, seed=k)
    share = ((1 + sign * d) / (1 - sign * d)) ** power
    return float((average.var() / (share * 1.5**2) - 1).abs()) / (5 * math.sqrt(2 / n))


# ---- the network -----------------------------------------------------------------------------


@equation("03.17")
@mutated(one=0, sign=-1)
def test_scale_and_shift_after_group_norm(one=1, sign=1):
    layer = unet.AdaGN(8, 2, 5, None).double().requires_grad_(False)
    for k, p in enumerate(layer.parameters()):
        p.copy_(normal(*p.shape, seed=k))
    h, emb = normal(3, 8, 4, 4), normal(3, 5, seed=1)
    scale, shift = (emb @ layer.time.weight.T + layer.time.bias)[:, :, None, None].chunk(2, 1)
    var, mean = torch.var_mean(h.view(3, 2, -1), 2, correction=0, keepdim=True)
    flat = ((h.view(3, 2, -1) - mean) / (var + 1e-5).sqrt()).view_as(h)
    normed = flat * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]
    return exact(normed * (one + scale) + sign * shift, layer(h, emb, None))


@equation("03.18")
@mutated(sign=-1, swap=True)
def test_a_concatenation_is_a_sum(sign=1, swap=False):
    kernel, h, s = normal(4, 6, 3, 3), normal(2, 3, 5, 5, seed=1), normal(2, 3, 5, 5, seed=2)
    of_h, of_s = (kernel[:, 3:], kernel[:, :3]) if swap else (kernel[:, :3], kernel[:, 3:])
    apart = F.conv2d(h, of_h, padding=1) + sign * F.conv2d(s, of_s, padding=1)
    return exact(apart, F.conv2d(torch.cat([h, s], 1), kernel, padding=1))
