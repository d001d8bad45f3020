"""Numeric twins of lecture 05: the non-Markovian family, its members, paths, and slerp."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from coursekit.diffusion import elbo
from coursekit.diffusion.sample import ddim, last, posterior, sigma
from coursekit.diffusion.schedule import Schedule

from . import exact, mutated, sampled

equation = pytest.mark.equation
LINEAR = Schedule.linear()
MOVES = [(1000, 999), (700, 699), (500, 480), (120, 20), (3, 2)]  # (t, s)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def variances(s):
    """A few admissible sigma^2 at level s."""
    return [share * (1 - LINEAR.level(s)) for share in (0.0, 0.2, 0.9)]


def worst(residuals):
    return max(residuals)


# ---- the family ----------------------------------------------------------------------------


@equation("05.1")
@mutated(one=1.1, power=1)
def test_the_chain_arrives_at_the_marginal(one=1, power=0.5):
    mean, var, off = 1.0, 0.0, []
    for t in range(1, 1001):
        beta = LINEAR.beta(t)
        mean, var = math.sqrt(1 - beta) * mean, (1 - beta) * var + beta
        level = LINEAR.level(t)
        off.append(exact([mean, var], [level**power, one - level]))
    return worst(off)


@equation("05.2")
@mutated(sign=1)
def test_old_and_fresh_noise_fill_the_variance(sign=-1):
    off = []
    for t, s in MOVES[:3]:
        room = 1 - LINEAR.level(s)
        kept, fresh = math.sqrt(room + sign * 0.4 * room), math.sqrt(0.4 * room)
        noise = kept * normal(200_000, seed=t) + fresh * normal(200_000, seed=s)
        off.append(sampled(noise**2 / room, 1.0))
    return worst(off)


@equation("05.3")
@mutated(sign=1, signal=0.9)
def test_the_member_is_the_conditional_of_the_pair(sign=-1, signal=1):
    """The conditional of (x_s, x_t) from their covariance matrix, at random x_t and x_0."""
    off = []
    x, x0 = normal(2, 50)
    for t, s in MOVES:
        now, then = LINEAR.level(t), LINEAR.level(s)
        for var in variances(s):
            kept = math.sqrt(1 - then - var)
            ties = double(math.sqrt(1 - now), 0), double(kept, math.sqrt(var))  # in (eps, z)
            slope = ties[0] @ ties[1] / (ties[0] @ ties[0])
            mean = math.sqrt(then) * x0 + slope * (x - math.sqrt(now) * x0)
            rest = ties[1] @ ties[1] - slope * (ties[0] @ ties[1])
            under_root = max(0.0, 1 - then + sign * var)
            printed = signal * math.sqrt(then) * x0 + math.sqrt(under_root) * (
                x - math.sqrt(now) * x0) / math.sqrt(1 - now)
            off += [exact(printed, mean), exact(var, rest),
                    exact(posterior(LINEAR, x[None], x0[None], t, s, math.sqrt(var))[0], mean)]
    return worst(off)


SHORT = Schedule(double(1, 0.9, 0.7, 0.4, 0.1))  # T = 4
SPREADS = {2: 0.1, 3: 0.3, 4: 0.2}  # t -> sigma_t


@equation("05.4")
@mutated(first=3, sign=-1)
def test_the_product_is_the_joint_density(first=2, sign=1):
    """Noises of neighbours have the correlation c / sqrt(1 - abar_s), so all have its products."""
    x, x0 = normal(5, 20, seed=1), normal(20, seed=2)  # x[t], t = 1..4
    log_q = Normal(math.sqrt(0.1) * x0, math.sqrt(0.9)).log_prob(x[4])
    for t in range(first, 5):
        mean = posterior(SHORT, x[t][:, None], x0[:, None], t, t - 1, SPREADS[t])[:, 0]
        log_q = log_q + sign * Normal(mean, SPREADS[t]).log_prob(x[t - 1])
    noise = 1 - SHORT.abar[1:]
    ties = [math.sqrt(1 - SPREADS[t] ** 2 / (1 - SHORT.level(t - 1))) for t in (2, 3, 4)]
    tie = double(*[[math.prod(ties[min(i, j):max(i, j)]) for j in range(4)] for i in range(4)])
    means = SHORT.abar[1:].sqrt() * x0[:, None]  # (n, 4)
    joint = MultivariateNormal(means, tie * (noise[:, None] * noise).sqrt())
    return exact(log_q, joint.log_prob(x[1:].T))


@equation("05.5")
@mutated(fresh=0.5, kept=1.5)
def test_one_step_of_the_induction(fresh=1, kept=1):
    n, x0, off = 200_000, 0.7, []
    for t, s in ((500, 480), (120, 20)):
        then = LINEAR.level(s)
        sd = math.sqrt(0.5 * (1 - then))
        truth = torch.full((n, 1), x0, dtype=torch.float64)
        x = LINEAR.noise(truth, normal(n, 1, seed=t), t)
        x = posterior(LINEAR, x, truth, t, s, sd) + sd * normal(n, 1, seed=s)
        var = fresh * sd**2 + kept * (1 - then - sd**2)
        off += [sampled(x, math.sqrt(then) * x0), sampled((x - x.mean()) ** 2, var)]
    return worst(off)


@equation("05.6")
@mutated(sign=-1, spread=1.2)
def test_the_forward_step_by_bayes(sign=1, spread=1):
    """log q(x_s | x_t, x_0) + log q(x_t | x_0) - log q(x_s | x_0), at random points."""
    off = []
    x_t, x_s, x0 = normal(3, 40)
    for t, s in ((500, 480), (120, 20), (1000, 900)):
        now, then = LINEAR.level(t), LINEAR.level(s)
        sd = math.sqrt(0.4 * (1 - then))
        back = posterior(LINEAR, x_t[None], x0[None], t, s, sd)[0]
        bayes = (Normal(back, sd).log_prob(x_s)
                 + Normal(math.sqrt(now) * x0, math.sqrt(1 - now)).log_prob(x_t)
                 - Normal(math.sqrt(then) * x0, math.sqrt(1 - then)).log_prob(x_s))
        slope = math.sqrt(1 - then - sd**2) * math.sqrt(1 - now) / (1 - then)
        mean = math.sqrt(now) * x0 + sign * slope * (x_s - math.sqrt(then) * x0)
        width = spread * sd * math.sqrt((1 - now) / (1 - then))
        off.append(exact(Normal(mean, width).log_prob(x_t), bayes, 1e-8))
    return worst(off)


def memory(t, s, var, sign=-1):
    now, then = LINEAR.level(t), LINEAR.level(s)
    kept = math.sqrt(max(0.0, 1 - then - var))
    return math.sqrt(now) + sign * math.sqrt(then) * kept * math.sqrt(1 - now) / (1 - then)


@equation("05.7")
@mutated(sign=1)
def test_the_memory_is_the_regression_coefficient_of_x0(sign=-1):
    """x_t regressed on (x_s, x_0) for x_0 ~ N(0, 1), by the normal equations."""
    off = []
    for t, s in MOVES[1:4]:
        now, then = LINEAR.level(t), LINEAR.level(s)
        for var in variances(s):
            with_s = math.sqrt(now * then) + math.sqrt((1 - then - var) * (1 - now))
            among = double([1, math.sqrt(then)], [math.sqrt(then), 1])  # of x_s, x_0
            slopes = torch.linalg.solve(among, double(with_s, math.sqrt(now)))
            off.append(exact(memory(t, s, var, sign), slopes[1]))
    return worst(off)


@equation("05.8")
@mutated(sign=1, power=0.5)
def test_one_variance_forgets_x0(sign=-1, power=1):
    """The zero of the memory, found by bisection."""
    off = []
    for t, s in MOVES[1:]:
        low, high = 0.0, 1 - LINEAR.level(s)
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if memory(t, s, middle) < 0 else (low, middle)
        now, then = LINEAR.level(t), LINEAR.level(s)
        beta = (1 - then) / (1 - now) * (1 + sign * (now / then) ** power)
        off += [exact(beta / low, 1.0, 1e-8), exact(LINEAR.beta_tilde(t, s) / low, 1.0, 1e-8)]
    return worst(off)


# ---- the sampler ---------------------------------------------------------------------------


def wavy(x, t):
    return math.sqrt(1 - LINEAR.level(t)) * (0.9 * x + 0.1 * torch.sin(3 * x + 0.01 * t))


def hop(x, e, t, s, sd, z, sign=-1, direction=1):
    """(05.9)"""
    now, then = LINEAR.level(t), LINEAR.level(s)
    x0 = (x + sign * math.sqrt(1 - now) * e) / math.sqrt(now)
    return math.sqrt(then) * x0 + direction * math.sqrt(1 - then - sd**2) * e + sd * z


def diffusers_hop(x, t, s, eta, z):
    """One step of diffusers' DDIMScheduler on a path with hops of t - s."""
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.alphas_cumprod = LINEAR.abar[1:].clone()
    scheduler.final_alpha_cumprod = LINEAR.abar[0]
    scheduler.set_timesteps(1000 // (t - s))
    out = scheduler.step(wavy(x, t), t - 1, x, eta=eta, variance_noise=z if eta else None)
    return out.prev_sample


@equation("05.9")
@mutated(sign=1, direction=-1)
def test_the_step_is_diffusers(sign=-1, direction=1):
    x, z = normal(2, 3, 4)
    off = []
    for eta in (0.0, 0.3, 1.0):
        sd = sigma(LINEAR, 501, 481, eta)
        ours = hop(x, wavy(x, 501), 501, 481, sd, z, sign, direction)
        off.append(exact(ours, diffusers_hop(x, 501, 481, eta, z)))
    return worst(off)


@equation("05.10")
@mutated(sign=1, eta=0.9)
def test_eta_counts_in_deviations_of_ddpms_posterior(sign=-1, eta=1):
    """Precisions add in a product of Gaussians: q(x_t | x_s) q(x_s | x_0) as functions of x_s."""
    off = []
    for t, s in MOVES:
        now, then = LINEAR.level(t), LINEAR.level(s)
        precision = (now / then) / (1 - now / then) + 1 / (1 - then)
        printed = eta * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 + sign * now / then)
        off += [exact(printed / precision**-0.5, 1.0),
                exact(printed / sigma(LINEAR, t, s, 0.5), 2.0)]
    return worst(off)


@equation("05.11")
@mutated(noise=-1, signal=0.9)
def test_ddim_slides_along_the_line_from_noise_to_picture(noise=1, signal=1):
    """A predictor that knows the noise is led to that picture and that noise, mixed for s."""
    x0, e = normal(2, 3, 4)
    off = []
    for t, s in MOVES:
        x = LINEAR.noise(x0, e, t)
        guess = LINEAR.denoise(x, e, t)
        then = LINEAR.level(s)
        off += [exact(signal * math.sqrt(then) * guess + noise * math.sqrt(1 - then) * e,
                      LINEAR.noise(x0, e, s)),
                exact(last(ddim(lambda x, t: e, LINEAR, x, [t, s])).x, LINEAR.noise(x0, e, s))]
    return worst(off)


def weight(t, s, sd, sign=-1, half=0.5):
    now, then = LINEAR.level(t), LINEAR.level(s)
    gap = math.sqrt(then * (1 - now) / now) + sign * math.sqrt(1 - then - sd**2)
    return half * gap**2 / sd**2


@equation("05.12")
@mutated(sign=1, half=1)
def test_the_weight_of_the_squared_error(sign=-1, half=0.5):
    """KL by torch, between the two means that the true and the predicted noise give."""
    x, e, guess = normal(3, 1, 30)
    off = []
    for t, s in MOVES[:4]:
        for eta in (0.2, 1.0):
            sd = sigma(LINEAR, t, s, eta)
            means = [posterior(LINEAR, x, LINEAR.denoise(x, k, t), t, s, sd) for k in (e, guess)]
            kl = kl_divergence(*(Normal(m, sd) for m in means)).sum()
            off.append(exact(weight(t, s, sd, sign, half) * (e - guess).square().sum() / kl, 1.0))
    return worst(off)


@equation("05.13")
@mutated(two=1, power=0.5)
def test_ddpms_weight_is_the_family_at_eta_one(two=2, power=1):
    off = []
    for t in (2, 50, 500, 1000):
        beta, small = LINEAR.beta(t), LINEAR.beta_tilde(t)
        ddpm = beta**2 / (two * small * (1 - beta) ** power * (1 - LINEAR.level(t)))
        ours = elbo.gamma(LINEAR, t, t - 1, math.sqrt(small))
        off += [exact(ours / ddpm, 1.0, 1e-6), exact(weight(t, t - 1, math.sqrt(small)) / ours, 1.0)]
    return worst(off)


@equation("05.14")
@mutated(neighbour=True, eta=0.4)
def test_a_hop_on_a_path_is_diffusers(neighbour=False, eta=0.5):
    """neighbour=True is the slip of taking sigma from the step t -> t-1."""
    x, z = normal(2, 3, 4)
    off = []
    for t, s in ((981, 961), (501, 481), (41, 21)):
        now, then = LINEAR.level(t), LINEAR.level(t - 1 if neighbour else s)
        sd = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        off.append(exact(hop(x, wavy(x, t), t, s, sd, z), diffusers_hop(x, t, s, 0.5, z)))
    return worst(off)


@equation("05.15")
@mutated(sign=-1, fresh=0)
def test_the_variance_of_gaussian_samples(sign=1, fresh=1, d=0.25, n=200_000):
    def eps(x, t):
        return math.sqrt(1 - LINEAR.level(t)) * x / (LINEAR.level(t) * d + 1 - LINEAR.level(t))

    v, path = 1.0, [1000, 700, 400, 150]
    for t, s in pairwise(path):
        now, then, sd = LINEAR.level(t), LINEAR.level(s), sigma(LINEAR, t, s, 1.0)
        kept = math.sqrt(1 - then - sd**2)
        gain = (math.sqrt(then * now) * d + sign * kept * math.sqrt(1 - now)) / (now * d + 1 - now)
        v = gain**2 * v + fresh * sd**2
    x = last(ddim(eps, LINEAR, normal(n, 1), path, 1.0, seeded(1))).x
    return sampled(x**2, v)


# ---- between two codes ---------------------------------------------------------------------


@equation("05.16")
@mutated(sign=-1, power=1)
def test_the_straight_line_loses_variance(sign=1, power=2):
    a, b = normal(2, 200_000)
    return worst([sampled(((1 - k) * a + k * b) ** 2, (1 - k) ** power + sign * k**power)
                  for k in (0.25, 0.5, 0.8)])


@equation("05.17")
@mutated(sign=1, turn=0.9)
def test_slerp_is_a_rotation_at_constant_speed(sign=-1, turn=1):
    """In the plane of a and b: cos(k phi) a + sin(k phi) a', with a' at a right angle to a."""
    a, b = normal(2, 40)
    b = b * a.norm() / b.norm()
    phi = torch.arccos(turn * (a @ b) / (a.norm() * b.norm()))
    side = b - (a @ b) / (a @ a) * a
    side = side * a.norm() / side.norm()
    true_phi = torch.atan2(b @ side, b @ a)
    off = []
    for k in (0.0, 0.3, 0.5, 1.0):
        printed = (((1 + sign * k) * phi).sin() * a + (k * phi).sin() * b) / phi.sin()
        off.append(exact(printed, (k * true_phi).cos() * a + (k * true_phi).sin() * side))
    return worst(off)
