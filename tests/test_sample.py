"""Samplers against diffusers, DDPM's posterior, and laws whose score is known."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDPMScheduler
from test_schedule import EXACT, NAMED, pair, peer
from torch.testing import assert_close
from toys import TRIANGLE

from coursekit.diffusion.sample import ddim, ddpm, invert, last, posterior, sigma, slerp
from coursekit.diffusion.schedule import Schedule

LINEAR, SCALED = NAMED[:2]
DOUBLE, SINGLE = (torch.float64, 1e-12), (torch.float32, 1e-5)


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wavy(x: torch.Tensor, t: int) -> torch.Tensor:
    """A stand-in for a network: about right for N(0, 1) data, bent, different at every time."""
    return math.sqrt(1 - LINEAR.level(t)) * (0.9 * x + 0.1 * torch.sin(3 * x + 0.01 * t))


# ---- against diffusers ---------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [DOUBLE, SINGLE])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("schedule", "offset", "clip"), [(LINEAR, 0, None), (SCALED, 1, None), (LINEAR, 0, 0.5)]
)
def test_ddim_is_diffusers(schedule, offset, clip, eta, dtype, bound) -> None:
    """Every step of a path, from the same x and with the same noise."""
    scheduler = peer(schedule, steps_offset=offset, set_alpha_to_one=not offset)
    scheduler.alphas_cumprod = schedule.abar[1:].to(dtype)
    scheduler.final_alpha_cumprod = schedule.abar[offset].to(dtype)
    scheduler.register_to_config(clip_sample=clip is not None, clip_sample_range=clip or 1.0)
    scheduler.set_timesteps(50)
    x, path, ours, theirs = pair(dtype=dtype)[0], schedule.leading(50, offset), seeded(), seeded()
    states = list(ddim(wavy, schedule, x, path, eta, ours, clip))
    assert [s.t for s in states] == path
    for k, (before, after) in zip(scheduler.timesteps, pairwise(states), strict=True):
        out = scheduler.step(
            wavy(before.x, before.t), int(k), before.x, eta=eta, generator=theirs,
            use_clipped_model_output=clip is not None,
        )  # fmt: skip
        assert_close(after.x, out.prev_sample, atol=bound, rtol=0)
        assert_close(after.x0, out.pred_original_sample, atol=100 * bound, rtol=bound)


@pytest.mark.parametrize(("dtype", "bound"), [DOUBLE, SINGLE])
@pytest.mark.parametrize("large", [False, True])
def test_ddpm_is_diffusers(large, dtype, bound) -> None:
    kind = "fixed_large" if large else "fixed_small"
    scheduler = DDPMScheduler(variance_type=kind, clip_sample=False)
    # in its own float32 table 1 - abar_t / abar_s loses digits: up to 3e-4 in x at small t
    scheduler.alphas_cumprod = LINEAR.abar[1:].clone()
    scheduler.one = torch.ones((), dtype=torch.float64)
    for S in (1000, 100):
        scheduler.set_timesteps(S)
        x, ours, theirs = pair(dtype=dtype)[0], seeded(), seeded()
        variance = LINEAR.beta if large else None
        states = list(ddpm(wavy, LINEAR, x, LINEAR.leading(S), variance, ours))
        for k, (before, after) in zip(scheduler.timesteps, pairwise(states), strict=True):
            out = scheduler.step(wavy(before.x, before.t), int(k), before.x, generator=theirs)
            assert_close(after.x, out.prev_sample, atol=bound, rtol=0)


@pytest.mark.parametrize(("dtype", "bound"), [DOUBLE, SINGLE])
@pytest.mark.parametrize("offset", [0, 1])
def test_inversion_is_diffusers_inverse_scheduler(offset, dtype, bound) -> None:
    scheduler = DDIMInverseScheduler(clip_sample=False, steps_offset=offset)
    scheduler.alphas_cumprod = SCALED.abar[1:].to(dtype)
    scheduler.initial_alpha_cumprod = SCALED.abar[offset].to(dtype)
    scheduler.set_timesteps(50)
    path = SCALED.leading(50, offset)
    states = list(invert(wavy, SCALED, pair(dtype=dtype)[0], path))
    assert [s.t for s in states] == path[::-1]
    for k, (before, after) in zip(scheduler.timesteps, pairwise(states), strict=True):
        theirs = scheduler.step(wavy(before.x, int(k) + 1), int(k), before.x).prev_sample
        assert_close(after.x, theirs, atol=bound, rtol=0)


# ---- the generalised posterior -------------------------------------------------------------


def test_eta_one_is_ddpms_posterior() -> None:
    """Mean and variance as the product of two Gaussians in the betas (DDPM, eq. 6-7)."""
    x, x0 = pair()
    beta = 1 - LINEAR.abar[1:] / LINEAR.abar[:-1]
    for t in (1, 2, 10, 100, 1000):
        b, before, now = beta[t - 1], LINEAR.abar[t - 1], LINEAR.abar[t]
        var = (1 - before) / (1 - now) * b
        mean = (before.sqrt() * b * x0 + (1 - b).sqrt() * (1 - before) * x) / (1 - now)
        sd = sigma(LINEAR, t, t - 1, eta=1.0)
        assert_close(sd**2, float(var), atol=0, rtol=1e-12)
        assert_close(posterior(LINEAR, x, x0, t, t - 1, sd), mean, **EXACT)


@pytest.mark.parametrize("schedule", [LINEAR, SCALED])
def test_e16_sigma_sqrt_beta_is_not_ddpm(schedule: Schedule) -> None:
    """E16: the slides' sigma_t = sqrt(beta_t) leaves the family at t = 1, 2 and moves the mean."""
    x, x0 = pair()
    for t in (1, 2):
        with pytest.raises(ValueError, match="sd: .* is outside 0 <= sd"):
            posterior(schedule, x, x0, t, t - 1, math.sqrt(schedule.beta(t)))
    for t in (3, 10, 100):
        ddpm_mean = posterior(schedule, x, x0, t, t - 1, math.sqrt(schedule.beta_tilde(t)))
        slides = posterior(schedule, x, x0, t, t - 1, math.sqrt(schedule.beta(t)))
        moved, noise = (slides - ddpm_mean).abs().max(), math.sqrt(schedule.beta_tilde(t))
        assert moved > 1e-3 * noise
    if schedule is LINEAR:
        ratios = [LINEAR.beta(t) / LINEAR.beta_tilde(t) for t in (2, 10, 100, 1000)]
        assert ratios == pytest.approx([2.20, 1.17, 1.018, 1.0000008], rel=3e-3)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("t", "s"), [(1, 0), (2, 1), (500, 480), (1000, 20)])
def test_e17_any_admissible_sigma_keeps_the_marginal(t: int, s: int, share: float) -> None:
    """E17: for sd^2 up to 1 - abar_s, x_s has the mean and variance of q(x_s | x_0); not beyond."""
    room = 1 - LINEAR.level(s)
    sd = math.sqrt(share * room)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    a, b = LINEAR.scales(t, one)
    from_signal = posterior(LINEAR, a * one, one, t, s, sd)  # x_0 = 1, no noise in x_t
    from_noise = posterior(LINEAR, b * one, zero, t, s, sd)  # x_0 = 0, one unit of noise
    assert_close(from_signal, math.sqrt(LINEAR.level(s)) * one, **EXACT)
    assert_close(from_noise**2 + sd**2, room * one, **EXACT)
    with pytest.raises(ValueError, match="sd: "):
        posterior(LINEAR, one, one, t, s, math.sqrt(room) + 1e-3)
    for eta in (0, 0.5, 1):
        assert 0 <= sigma(LINEAR, t, s, eta) ** 2 <= room


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_chain_keeps_every_marginal(eta: float) -> None:
    """With a predictor that knows x_0, all states of 100,000 chains have q(x_t | x_0)."""
    n, x0 = 100_000, 0.7

    def knowing(x: torch.Tensor, t: int) -> torch.Tensor:
        a, b = LINEAR.scales(t, x)
        return (x - a * x0) / b

    g = seeded()
    path = [1000, 700, 500, 260, 30, 0]
    start = LINEAR.noise(torch.full((n, 1), x0).double(), torch.randn(n, 1, generator=g), 1000)
    for state in ddim(knowing, LINEAR, start, path, eta, g):
        mean, var = math.sqrt(LINEAR.level(state.t)) * x0, 1 - LINEAR.level(state.t)
        assert abs(float(state.x.mean()) - mean) <= 4 * math.sqrt(var / n) + 1e-12
        assert abs(float(state.x.var()) - var) <= 4 * var * math.sqrt(2 / n) + 1e-12


def test_small_variance_is_eta_one_and_large_only_widens_the_noise() -> None:
    x, path = pair()[0], [1000, 600, 0]
    small = list(ddpm(wavy, LINEAR, x, path, generator=seeded()))
    for a, b in zip(small, ddim(wavy, LINEAR, x, path, 1.0, seeded()), strict=True):
        assert_close(a.x, b.x, atol=0, rtol=0)
    large = list(ddpm(wavy, LINEAR, x, path, LINEAR.beta, seeded()))
    z = torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    wider = math.sqrt(LINEAR.beta(1000, 600)) - math.sqrt(LINEAR.beta_tilde(1000, 600))
    assert_close(large[1].x - small[1].x, wider * z, **EXACT)
    mean = posterior(LINEAR, x, small[1].x0, 1000, 600, sigma(LINEAR, 1000, 600, 1.0))
    assert_close(large[1].x - math.sqrt(LINEAR.beta(1000, 600)) * z, mean, **EXACT)


def test_exact_reverse_variance_samples_a_gaussian_exactly() -> None:
    """Data N(0, s^2), 20 hops: with Var(x_s | x_t) every marginal is right; beta_tilde shrinks."""
    n, var, path = 200_000, 0.25, LINEAR.trailing(20)
    total = [level * var + 1 - level for level in LINEAR.abar.tolist()]

    def eps(x: torch.Tensor, t: int) -> torch.Tensor:
        return x * math.sqrt(1 - LINEAR.level(t)) / total[t]

    def exact(t: int, s: int) -> float:
        return total[s] - (LINEAR.level(t) / LINEAR.level(s)) * total[s] ** 2 / total[t]

    start = math.sqrt(total[1000]) * torch.randn(n, 1, generator=seeded(), dtype=torch.float64)
    right = {s.t: s.x.var() for s in ddpm(eps, LINEAR, start, path, exact, seeded(1))}
    small = {s.t: s.x.var() for s in ddpm(eps, LINEAR, start, path, None, seeded(1))}
    for t in path[:-1]:
        assert abs(right[t] / total[t] - 1) < 4 * math.sqrt(2 / n)
    assert small[50] < 0.9 * total[50]


# ---- laws with a known score ---------------------------------------------------------------


def test_ddim_lands_on_the_data() -> None:
    x = torch.randn(500, 2, generator=seeded()).double()
    end = last(ddim(TRIANGLE.eps(LINEAR), LINEAR, x, LINEAR.trailing(200)))
    distance = torch.cdist(end.x, TRIANGLE.means)
    assert distance.min(1).values.max() < 5 * TRIANGLE.std
    assert distance.argmin(1).bincount().min() > 100  # all three modes, about a third each
    assert end.t == 0
    assert_close(end.x, end.x0, atol=0, rtol=0)


def round_trip(S: int) -> float:
    """RMSE of sample(invert(x)) against x."""
    eps, path = TRIANGLE.eps(LINEAR), LINEAR.trailing(S)
    x = TRIANGLE.sample(400, seeded())
    code = last(invert(eps, LINEAR, x, path)).x
    return float((last(ddim(eps, LINEAR, code, path)).x - x).square().mean().sqrt())


def test_e21_inversion_is_first_order_not_exact() -> None:
    """E21: the round trip errs by O(1/S); the slides call it exact."""
    S = [50, 100, 200, 500]
    rmse = [round_trip(s) for s in S]
    assert min(rmse) > 1e-3
    for (s, a), (u, b) in pairwise(zip(S, rmse, strict=True)):
        assert abs(math.log(b / a) / math.log(u / s) + 1) < 0.1


def test_e22_encoding_is_the_reversed_ode_not_the_forward_process() -> None:
    """E22: DDIM codes do not depend on a seed and lead back; forward-process codes do neither."""
    eps, path, x = TRIANGLE.eps(LINEAR), LINEAR.trailing(200), TRIANGLE.sample(50, seeded())
    errors = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        code = last(invert(eps, LINEAR, x, path)).x
        noised = LINEAR.noise(x, torch.randn(x.shape, generator=seeded(seed)).double(), 1000)
        errors.append([last(ddim(eps, LINEAR, c, path)).x - x for c in (code, noised)])
    (first, forward), (second, other) = errors
    assert_close(first, second, atol=0, rtol=0)
    assert first.square().mean().sqrt() < 0.05
    assert (forward - other).abs().max() > 0.5
    assert forward.square().mean().sqrt() > 0.5


def test_inversion_undoes_sampling_while_eps_is_frozen() -> None:
    x, eps = pair()
    for path in (SCALED.leading(20, 1), [1000, 3, 0]):
        end = last(ddim(lambda x, t: eps, SCALED, x, path)).x
        assert_close(last(invert(lambda x, t: eps, SCALED, end, path)).x, x, atol=1e-10, rtol=0)


# ---- E20: the slides' own table ------------------------------------------------------------

TABLE = """
eta  10     20    50    100   1000 | 10    20    50    100   1000
0.0  13.36  6.84  4.67  4.16  4.04 | 17.33 13.73 9.17  6.53  3.51
0.2  14.04  7.11  4.77  4.25  4.09 | 17.66 14.11 9.51  6.79  3.64
0.5  16.66  8.35  5.25  4.46  4.29 | 19.86 16.06 11.01 8.09  4.28
1.0  41.07  18.36 8.01  5.78  4.73 | 33.12 26.03 18.48 13.93 5.98
"""


def test_e20_ten_ddim_steps_do_not_beat_a_thousand_ddpm_steps() -> None:
    """E20: FID by eta and S (CIFAR10 | CelebA): DDIM wins at equal small S, not at 10 v. 1000."""
    head, *rows = (line.replace("|", "").split() for line in TABLE.strip().splitlines())
    steps = [int(s) for s in head[1:6]]
    fid = {
        (data, float(row[0]), s): float(row[1 + 5 * k + i])
        for row in rows
        for k, data in enumerate(("cifar", "celeba"))
        for i, s in enumerate(steps)
    }
    for data in ("cifar", "celeba"):
        ddpm_1000 = fid[data, 1.0, 1000]
        assert fid[data, 0.0, 10] > 2.5 * ddpm_1000  # the claim of the slide, refuted
        assert all(fid[data, 0.0, s] < fid[data, 1.0, s] for s in steps)
        passes = [s for s in steps if fid[data, 0.0, s] < ddpm_1000]
        assert passes[0] == {"cifar": 50, "celeba": 1000}[data]


# ---- the loop ------------------------------------------------------------------------------


def test_assigning_x_redirects_the_walk() -> None:
    """Masked sampling in two lines: one half is put back at every level and kept to the bit."""
    (x, kept), path = pair(), LINEAR.trailing(10)
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[..., :4] = True

    def eps(y: torch.Tensor, t: int) -> torch.Tensor:
        return wavy(y - 0.3 * y.mean(), t)  # each half sees the other

    def put_back(y: torch.Tensor, t: int) -> torch.Tensor:
        return torch.where(mask, LINEAR.noise(kept, x, t), y)

    for state in ddim(eps, LINEAR, x, path):
        state.x = put_back(state.x, state.t)
    assert_close(state.x[mask], kept[mask], atol=0, rtol=0)
    y = put_back(x, 1000)
    for t, s in pairwise(path):
        y = put_back(LINEAR.noise(LINEAR.denoise(y, eps(y, t), t), eps(y, t), s), s)
    assert_close(state.x, y, **EXACT)
    assert (last(ddim(eps, LINEAR, x, path)).x - y)[~mask].abs().max() > 0.01
    for a in invert(wavy, LINEAR, x, [500, 0]):
        a.x = a.x + 1
    assert_close(a.x - 1, last(invert(wavy, LINEAR, x + 1, [500, 0])).x, **EXACT)


def test_clipping_bounds_x0() -> None:
    states = list(ddim(wavy, LINEAR, 3 * pair()[0], LINEAR.trailing(10), clip=1.0))
    assert all(s.x0.abs().max() <= 1 for s in states[1:])
    assert states[0].x0 is None


def test_gradients_flow_through_the_loop() -> None:
    x = pair()[0].requires_grad_()
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    end = last(ddim(lambda x, t: gain * wavy(x, t), LINEAR, x, LINEAR.trailing(5))).x
    end.sum().backward()
    assert x.grad.abs().min() > 0 and gain.grad.abs() > 0


X = torch.zeros(2, 3, 4, 4)
NAN = X.clone().index_put_((torch.tensor(0), torch.tensor(0)), torch.tensor(math.nan))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ddim(wavy, LINEAR, X, [9, 0], eta=1.5), ValueError, r"eta: 1.5 .* \[0, 1\]"),
        (lambda: ddim(wavy, LINEAR, X, [9, 0], eta=-0.1), ValueError, "eta: -0.1"),
        (lambda: ddim(wavy, LINEAR, X, [9, 0], eta=math.nan), ValueError, "eta: nan"),
        (lambda: ddim(wavy, LINEAR, X, [9, 20, 0]), ValueError, "path: 9 -> 20 at position 0"),
        (lambda: ddim(wavy, LINEAR, X, [9, 0], clip=-1.0), ValueError, "clip: -1.0"),
        (lambda: ddpm(wavy, LINEAR, X, [1001, 0]), ValueError, r"path: 1001 .* 0\.\.1000"),
        (lambda: invert(wavy, LINEAR, X, [0, 9]), ValueError, "path: 0 -> 9"),
        (lambda: invert(wavy, LINEAR, NAN, [9, 0]), ValueError, "x: 16 of 96 values are NaN"),
        (lambda: ddim(wavy, LINEAR, X / 0, [9, 0]), ValueError, "x: 96 of 96"),
        (lambda: ddim(wavy, LINEAR, X.long(), [9, 0]), TypeError, "x: .* got torch.int64"),
        (lambda: ddim(wavy, LINEAR, [1.0], [9, 0]), TypeError, "x: .* got list"),
        (lambda: ddim(wavy, LINEAR, X[0, 0, 0], [9, 0]), TypeError, r"x: .*\(4,\)"),
        (lambda: posterior(LINEAR, X, X, 5, 5, 0.0), ValueError, "t, s: 5, 5"),
        (lambda: posterior(LINEAR, X, X, 5, 4, -0.1), ValueError, "sd: -0.1"),
        (lambda: last(iter([])), ValueError, "items: nothing"),
        (
            lambda: last(ddim(lambda x, t: x[:, :2], LINEAR, X, [9, 0])),
            ValueError,
            r"eps: returned shape \(2, 2, 4, 4\), x has \(2, 3, 4, 4\)",
        ),
    ],
)
def test_bad_input_is_named_in_one_line(call, error, words: str) -> None:
    """Refused when the sampler is called: no step is needed to find out."""
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# ---- paths and points for a code ------------------------------------------------------------


@pytest.mark.parametrize("schedule, share", [
    (Schedule.cosine(), 0.3), (Schedule.linear(), 0.9)], ids=str)
def test_karras_paths_keep_the_large_shapes_that_even_ones_lose(schedule, share):
    def eps(x, t):  # of a law as wide as the colour of a whole picture is, beside its noise
        level = schedule.level(t)
        return (1 - level) ** 0.5 * x / (level * 35.0**2 + 1 - level)

    def error(path):
        x0 = torch.full((1, 1), 35.0, dtype=torch.float64)
        code = last(invert(eps, schedule, x0, path)).x
        return abs(float(last(ddim(eps, schedule, code, path)).x / x0) - 1)
    for S in (20, 40):
        path = schedule.karras(S)
        assert schedule.check_path(path) == path and path[0] == 980 and path[-1] == 0
        assert abs(len(path) - 1 - S) <= 2
    assert error(schedule.karras(40)) < share * error(schedule.trailing(40))


def test_slerp_moves_evenly_on_the_circle():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    for share in (0.0, 0.25, 0.5, 1.0):
        angle = torch.tensor(share * torch.pi / 2)
        assert_close(slerp(a, b, share), 2 * torch.stack([angle.cos(), angle.sin()])[None])


def test_slerp_keeps_length_ends_and_batch(generator):
    a, b = torch.randn(2, 3, 3, 8, 8, generator=generator).unbind()
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).view(3, 1, 1, 1)
    assert_close(slerp(a, b, 0.0), a)
    assert_close(slerp(a, b, 1.0), b)
    middle = slerp(a, b, 0.3)
    assert_close(middle.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    assert_close(middle[1:2], slerp(a[1:2], b[1:2], 0.3))


def test_slerp_between_nearly_equal_points_is_the_line(generator):
    a = torch.randn(1, 50, generator=generator, dtype=torch.float64)
    assert_close(slerp(a, a, 0.3), a)
    b = a + 1e-6 * torch.randn(1, 50, generator=generator, dtype=torch.float64)
    assert_close(slerp(a, b, 0.3), 0.7 * a + 0.3 * b, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, 0.5)
