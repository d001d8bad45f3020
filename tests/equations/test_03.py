"""Numeric twins of lecture 03: each equation by a second route, and what a slip would do to it.

Every test takes a `mutation`: none for the equation as displayed, else a wrong sign or factor that
must be noticed.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coursekit.diffusion import elbo
from coursekit.diffusion.sample import ddpm, last
from coursekit.diffusion.schedule import Schedule
from coursekit.diffusion.train import train
from coursekit.nets import unet

LINEAR, COSINE = Schedule.linear(), Schedule.cosine()
CENTRES, WEIGHTS = torch.tensor([-0.8, 0.1, 0.9]).double(), torch.tensor([0.5, 0.2, 0.3]).double()
SPREAD = 0.12


def cases(**mutations):
    """The true form, and a case for each way to get it wrong: name=value of what changes."""
    wrong = [pytest.param({name: value}, id=f"mutated-{name}") for name, value in mutations.items()]
    return pytest.mark.parametrize("mutation", [pytest.param({}, id="true"), *wrong])


def judge(mutation, error, tolerance):
    """A true form must meet the tolerance, a mutated one must miss it by far."""
    error = float(torch.as_tensor(error).detach().abs().max())
    assert error <= tolerance if not mutation else error > 3 * tolerance, f"{error:.3g}"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# ---- the toy: everything about eps given x_t, by brute force over x_0


GRID = torch.linspace(-2.5, 2.5, 20_001, dtype=torch.float64)


def toy_density(x0):
    gap = (x0[..., None] - CENTRES) / SPREAD
    return (WEIGHTS * torch.exp(-(gap**2) / 2)).sum(-1) / (SPREAD * math.sqrt(2 * math.pi))


def given(x, level):
    """Weights (n, grid) of x_0 given x_t = x, and the noise that each x_0 implies."""
    eps = (x[:, None] - math.sqrt(level) * GRID) / math.sqrt(1 - level)
    weight = toy_density(GRID) * torch.exp(-(eps**2) / 2)
    return weight, eps


def mean_eps(x, level):
    weight, eps = given(x, level)
    return (weight * eps).sum(1) / weight.sum(1)


POINTS = torch.linspace(-2, 2, 9, dtype=torch.float64)


@pytest.mark.equation("03.1")
@cases(signal=1.1, noise=1.05)
def test_forward(mutation):
    t, n = 300, 200_000
    x = torch.full((n,), 0.7, dtype=torch.float64)
    for k in range(1, t + 1, 20):  # the chain itself, twenty steps at once
        kept = LINEAR.level(min(k + 19, t)) / LINEAR.level(k - 1)
        x = math.sqrt(kept) * x + math.sqrt(1 - kept) * normal(n, seed=k)
    a, b = math.sqrt(LINEAR.level(t)), math.sqrt(1 - LINEAR.level(t))
    once = mutation.get("signal", 1) * a * 0.7 + mutation.get("noise", 1) * b * normal(n, seed=9999)
    mean_error, var_error = b * math.sqrt(2 / n), 2 * b**2 / math.sqrt(n)  # of a difference
    errors = [(once.mean() - x.mean()) / mean_error, (once.var() - x.var()) / var_error]
    judge(mutation, torch.stack(errors), 4)


@pytest.mark.equation("03.2")
@cases(factor=1.5)
def test_floor(mutation):
    level, x = COSINE.level(500), POINTS

    def guess(x):
        return torch.sin(3 * x)
    weight, eps = given(x, level)
    share = weight / weight.sum(1, keepdim=True)
    best = mean_eps(x, level)
    left = (share * (eps - guess(x)[:, None]) ** 2).sum(1)
    floor = (share * (eps - best[:, None]) ** 2).sum(1)
    judge(mutation, left - floor - mutation.get("factor", 1) * (best - guess(x)) ** 2, 1e-10)


@pytest.mark.equation("03.3")
@cases(sign=-1, factor=1.1)
def test_slope(mutation):
    level = COSINE.level(400)
    x = POINTS.clone().requires_grad_()
    log_p = given(x, level)[0].sum(1).log()
    slope = torch.autograd.grad(log_p.sum(), x)[0]
    factor = mutation.get("sign", 1) * mutation.get("factor", 1)
    judge(mutation, mean_eps(POINTS, level) + factor * math.sqrt(1 - level) * slope, 1e-9)


@pytest.mark.equation("03.4")
@cases(sign=-1, width=2)
def test_mixture(mutation):
    level = COSINE.level(600)
    var = level * (mutation.get("width", 1) * SPREAD) ** 2 + 1 - level
    gap = POINTS[:, None] - mutation.get("sign", 1) * math.sqrt(level) * CENTRES
    share = (WEIGHTS.log() - gap**2 / (2 * var)).softmax(1)
    said = math.sqrt(1 - level) * (share * gap).sum(1) / var
    judge(mutation, said - mean_eps(POINTS, level), 1e-8)


# ---- the loss


@pytest.mark.equation("03.5")
@cases(half=2, index=1)
def test_weight(mutation):
    t = 40
    x0, eps, guess = normal(3, 5), normal(3, 5, seed=1), normal(3, 5, seed=2)
    x0_hat = LINEAR.denoise(LINEAR.noise(x0, eps, t), guess, t)
    term = elbo.matching(LINEAR, x0, x0_hat, t, t - 1)  # a KL of two Gaussians
    beta, before = LINEAR.beta(t), LINEAR.level(t - 1 + mutation.get("index", 0))
    short = mutation.get("half", 1) * beta / (2 * (1 - beta) * (1 - before))
    long = beta**2 / (2 * LINEAR.beta_tilde(t) * (1 - beta) * (1 - LINEAR.level(t)))
    square = (eps - guess).square().sum(1)
    assert mutation or math.isclose(short, long, rel_tol=1e-9)
    judge(mutation, short * square / term - 1, 1e-9)


class Linear(nn.Module):
    """The perfect eps of N(0, var) data, with one idle weight for the optimiser."""

    def __init__(self, var):
        super().__init__()
        self.var, self.idle = var, nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        level = COSINE.abar[t].float()[:, None]
        return (1 - level).sqrt() * x / (level * self.var + 1 - level) + 0 * self.idle


@pytest.mark.equation("03.6")
@cases(start=400, power=1)
def test_simple_loss(mutation):
    var, n = 0.25, 4096

    def batches(k):
        return 0.5 * torch.randn(n, 1, generator=seeded(k))
    said = [u.loss for u in train(Linear(var), batches, COSINE, steps=8, prediction="eps", ema=0.0)]
    levels = COSINE.abar[1 + mutation.get("start", 0):]
    left = levels * var / (levels * var + 1 - levels)  # Var(eps | x_t) in closed form
    if "power" in mutation:  # the mean absolute value of a centred Gaussian
        left = (2 * left / math.pi).sqrt()
    judge(mutation, torch.tensor(said).mean() - left.mean(), 0.012)


# ---- eps, x_0, v


@pytest.mark.equation("03.7")
@cases(sign=-1)
def test_velocity(mutation):
    x0, eps, t = normal(4), normal(4, seed=1), 300
    level = COSINE.level(t)
    angle = torch.tensor(math.acos(math.sqrt(level)), dtype=torch.float64)
    velocity = torch.autograd.functional.jacobian(lambda p: p.cos() * x0 + p.sin() * eps, angle)
    v = math.sqrt(level) * eps - mutation.get("sign", 1) * math.sqrt(1 - level) * x0
    judge(mutation, velocity - v, 1e-12)


@pytest.mark.equation("03.8")
@cases(sign=-1, swap=1)
def test_rotate_back(mutation):
    x_t, v, level = normal(4), normal(4, seed=1), COSINE.level(700)
    a, b = math.sqrt(level), math.sqrt(1 - level)
    system = torch.tensor([[a, b], [-b, a]], dtype=torch.float64)  # (x_0, eps) -> (x_t, v)
    x0, eps = torch.linalg.solve(system, torch.stack([x_t, v]))
    if "swap" in mutation:
        a, b = b, a
    sign = mutation.get("sign", 1)
    judge(mutation, torch.cat([a * x_t - sign * b * v - x0, b * x_t + sign * a * v - eps]), 1e-12)


@pytest.mark.equation("03.9")
@cases(swap=1)
def test_three_losses(mutation):
    x0, eps, wrong, t = normal(6), normal(6, seed=1), normal(6, seed=2), 250
    x_t = COSINE.noise(x0, eps, t)
    eps_hat = eps + wrong
    x0_hat = COSINE.denoise(x_t, eps_hat, t)
    level = COSINE.level(t)
    a, b = math.sqrt(level), math.sqrt(1 - level)
    v, v_hat = a * eps - b * x0, a * eps_hat - b * x0_hat
    low, high = (level, 1 - level) if "swap" in mutation else (1 - level, level)
    total = (v - v_hat).square().sum()
    errors = [(x0 - x0_hat).square().sum() / low - total, wrong.square().sum() / high - total]
    judge(mutation, torch.stack(errors), 1e-10)


# ---- time


@pytest.mark.equation("03.10")
@cases(sign=-1, period=0.9)
def test_clocks(mutation):
    from diffusers.models.embeddings import get_timestep_embedding

    t, half = torch.tensor([0, 1, 9, 250, 1000]), 16
    rate = mutation.get("sign", 1) * math.log(10_000) * mutation.get("period", 1)
    angle = t.double()[:, None] * torch.exp(-rate * torch.arange(half).double() / half)
    ours = torch.cat([angle.cos(), angle.sin()], 1).float()
    theirs = get_timestep_embedding(t, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    judge(mutation, ours - theirs, 1e-3)


@pytest.mark.equation("03.11")
@cases(sign=-1)
def test_distance_of_times(mutation):
    t, s = torch.tensor([3, 40, 700]), torch.tensor([5, 10, 500])
    inner = (unet.time_embedding(t, 64).double() * unet.time_embedding(s, 64).double()).sum(1)
    rates = 10_000.0 ** (-torch.arange(32).double() / 32)
    apart = (t - mutation.get("sign", 1) * s).double()
    judge(mutation, inner - torch.cos(rates * apart[:, None]).sum(1), 2e-3)


# ---- the way back


@pytest.mark.equation("03.12")
@cases(swap=1, variance=1.1)
def test_posterior(mutation):
    t = 30
    beta, now, before = LINEAR.beta(t), LINEAR.level(t), LINEAR.level(t - 1)
    # x_{t-1} and x_t given x_0 are jointly Gaussian: condition by hand
    var, cov, top = 1 - before, math.sqrt(1 - beta) * (1 - before), 1 - now
    x0, x_t = 0.6, -0.4
    mean = math.sqrt(before) * x0 + cov / top * (x_t - math.sqrt(now) * x0)
    first = math.sqrt(before) * beta / (1 - now)
    second = math.sqrt(1 - beta) * (1 - before) / (1 - now)
    if "swap" in mutation:
        first, second = second, first
    said = mutation.get("variance", 1) * (1 - before) / (1 - now) * beta
    errors = first * x0 + second * x_t - mean, said - (var - cov**2 / top)
    judge(mutation, torch.tensor(errors), 1e-7)


@pytest.mark.equation("03.13")
@cases(sign=-1, root=1, noise=1.1)
def test_algorithm_2(mutation):
    t, x = 60, normal(7, 2)

    def eps(x, t):
        return torch.tanh(2 * x)
    state = last(ddpm(eps, LINEAR, x, [t, t - 1], generator=seeded(5)))
    z = torch.randn(x.shape, generator=seeded(5), dtype=torch.float64)
    beta, level = LINEAR.beta(t), LINEAR.level(t)
    share = beta / (1 - level if "root" in mutation else math.sqrt(1 - level))
    mean = (x - mutation.get("sign", 1) * share * eps(x, t)) / math.sqrt(1 - beta)
    ours = mean + mutation.get("noise", 1) * math.sqrt(LINEAR.beta_tilde(t)) * z
    judge(mutation, ours - state.x, 1e-10)


@pytest.mark.equation("03.14")
@cases(square=1, sign=-1)
def test_reverse_variance(mutation):
    t = 60
    beta, now, before = LINEAR.beta(t), LINEAR.level(t), LINEAR.level(t - 1)
    x_t = torch.tensor([0.45], dtype=torch.float64)
    weight = given(x_t, now)[0][0]
    mean = (weight * GRID).sum() / weight.sum()
    unknown = (weight * (GRID - mean) ** 2).sum() / weight.sum()  # Var(x_0 | x_t)
    # q(x_{t-1} | x_t) on a grid of its own: marginal at t-1 times one step up
    y = torch.linspace(-1.5, 2.5, 4001, dtype=torch.float64)
    up = torch.exp(-((x_t - math.sqrt(1 - beta) * y) ** 2) / (2 * beta))
    lower = given(y, before)[0].sum(1) * up
    centre = (lower * y).sum() / lower.sum()
    var = (lower * (y - centre) ** 2).sum() / lower.sum()
    gain = math.sqrt(before) * beta / (1 - now)
    gain = gain if "square" in mutation else gain**2
    said = LINEAR.beta_tilde(t) + mutation.get("sign", 1) * gain * unknown
    judge(mutation, said / var - 1, 1e-6)


# ---- the average


@pytest.mark.equation("03.15")
@cases(power=1, rest=1)
def test_unrolled(mutation):
    d, first, weights = 0.8, 2.0, normal(12)
    average = torch.tensor(first, dtype=torch.float64)
    for now in weights:
        average = torch.lerp(now, average, d)
    k = len(weights)
    fall = d ** (k - torch.arange(1, k + 1).double() + mutation.get("power", 0))
    kept = 0 if "rest" in mutation else d**k * first
    judge(mutation, kept + (1 - d) * (fall * weights).sum() - average, 1e-12)


@pytest.mark.equation("03.16")
@cases(sign=-1, root=1)
def test_calm(mutation):
    d, n = 0.9, 20_000
    average = torch.zeros(n, dtype=torch.float64)
    for k in range(120):
        average = torch.lerp(1.5 * normal(n, seed=k), average, d)
    share = (1 - mutation.get("sign", 1) * d) / (1 + mutation.get("sign", 1) * d)
    share = math.sqrt(share) if "root" in mutation else share
    judge(mutation, average.var() / (share * 1.5**2) - 1, 4 * math.sqrt(2 / n))


# ---- the network


@pytest.mark.equation("03.17")
@cases(one=0, shift=-1)
def test_ada_gn(mutation):
    layer = unet.AdaGN(8, 2, 5, None).double()
    for k, p in enumerate(layer.parameters()):
        p.data = normal(*p.shape, seed=k)
    h, emb = normal(3, 8, 4, 4), normal(3, 5, seed=1)
    scale, shift = (emb @ layer.time.weight.T + layer.time.bias)[:, :, None, None].chunk(2, 1)
    groups = h.view(3, 2, -1)
    var, mean = torch.var_mean(groups, 2, correction=0, keepdim=True)
    flat = (groups - mean) / (var + 1e-5).sqrt()
    normed = flat.view_as(h) * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]
    said = normed * (mutation.get("one", 1) + scale) + mutation.get("shift", 1) * shift
    judge(mutation, said - layer(h, emb, None), 1e-9)


@pytest.mark.equation("03.18")
@cases(order=1, sign=-1)
def test_concatenation(mutation):
    kernel, h, s = normal(4, 6, 3, 3), normal(2, 3, 5, 5, seed=1), normal(2, 3, 5, 5, seed=2)
    first, second = kernel[:, :3], kernel[:, 3:]
    if "order" in mutation:
        first, second = second, first
    apart = F.conv2d(h, first, padding=1) + mutation.get("sign", 1) * F.conv2d(s, second, padding=1)
    judge(mutation, F.conv2d(torch.cat([h, s], 1), kernel, padding=1) - apart, 1e-12)
