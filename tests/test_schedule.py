"""Schedules against diffusers; the two primitives; the seeds' misprinted DDIM formulas."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch.testing import assert_close

from coursekit.diffusion.schedule import Schedule

NAMED = [Schedule.linear(), Schedule.scaled_linear(), Schedule.cosine()]
EXACT = {"atol": 1e-12, "rtol": 0}


def pair(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(4, 3, 8, 8, generator=g, dtype=torch.float64).to(dtype) for _ in "xe")


def peer(schedule: Schedule, **config: object) -> DDIMScheduler:
    """A diffusers scheduler that holds our table, in double precision."""
    scheduler = DDIMScheduler(num_train_timesteps=schedule.T, clip_sample=False, **config)
    scheduler.alphas_cumprod = schedule.abar[1:].clone()
    return scheduler


@pytest.mark.parametrize(
    ("ours", "config"),
    [
        (Schedule.linear(), {}),
        (Schedule.linear(T=50, start=1e-3, end=0.3), {"beta_start": 1e-3, "beta_end": 0.3}),
        (Schedule.scaled_linear(), {"beta_start": 0.00085, "beta_end": 0.012}),
        (Schedule.cosine(), {}),
    ],
)
def test_tables_are_those_of_diffusers(ours: Schedule, config: dict) -> None:
    kind = ours.recipe["name"].replace("cosine", "squaredcos_cap_v2")
    scheduler = DDIMScheduler(num_train_timesteps=ours.T, beta_schedule=kind, **config)
    # diffusers works in float32: its cumulative product drifts, and 1 - beta loses digits
    assert_close(ours.abar[1:], scheduler.alphas_cumprod.double(), atol=5e-7, rtol=2e-4)
    theirs = Schedule.from_diffusers(scheduler)
    assert theirs.T == ours.T
    assert_close(theirs.abar[1:].float(), scheduler.alphas_cumprod, atol=0, rtol=0)


def test_published_levels() -> None:
    linear, scaled, _ = NAMED
    assert f"{linear.level(1000):.2e}" == "4.04e-05"
    assert f"{scaled.level(1000):.2e} {scaled.level(1):.5f}" == "4.66e-03 0.99915"


@pytest.mark.parametrize("schedule", NAMED)
def test_noise_is_diffusers_add_noise(schedule: Schedule) -> None:
    x0, eps = pair()
    t = torch.tensor([1, 2, 500, 1000])
    theirs = peer(schedule).add_noise(x0, eps, t - 1)
    assert_close(schedule.noise(x0, eps, t), theirs, **EXACT)
    for i, k in enumerate(t.tolist()):
        assert_close(schedule.noise(x0, eps, k)[i], theirs[i], **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_keeps_the_dtype(dtype: torch.dtype) -> None:
    x0, eps = pair()
    for t in (700, torch.tensor([1, 30, 700, 1000])):
        x = NAMED[0].noise(x0.to(dtype), eps.to(dtype), t)
        assert x.dtype == NAMED[0].denoise(x, eps.to(dtype), t).dtype == dtype
        bound = 4 * torch.finfo(dtype).eps
        assert_close(x.double(), NAMED[0].noise(x0, eps, t), atol=bound, rtol=bound)


@pytest.mark.parametrize("schedule", NAMED[:2])
@pytest.mark.parametrize("t", [0, 1, 37, 1000])
def test_denoise_undoes_noise(schedule: Schedule, t: int) -> None:
    x0, eps = pair()
    assert_close(schedule.denoise(schedule.noise(x0, eps, t), eps, t), x0, **EXACT)


def test_noise_levels_compose() -> None:
    """Noising to s and then by beta(t, s) is noising to t; beta_tilde is Bayes' variance."""
    for schedule in NAMED:
        for s, t in [(0, 1), (1, 2), (100, 120), (500, 1000)]:
            keep, beta = 1 - schedule.beta(t, s), schedule.beta(t, s)
            w_s, w_t = 1 - schedule.level(s), 1 - schedule.level(t)
            assert abs(keep * w_s + beta - w_t) < 1e-15
            bayes = 0 if s == 0 else 1 / (1 / w_s + keep / beta)
            assert schedule.beta_tilde(t, s) == pytest.approx(bayes, rel=1e-10)
        assert schedule.beta(7) == schedule.beta(7, 6)


def move(schedule: Schedule, x: torch.Tensor, eps: torch.Tensor, t: int, u: int) -> torch.Tensor:
    return schedule.noise(schedule.denoise(x, eps, t), eps, u)


@pytest.mark.parametrize(("t", "u"), [(1000, 980), (500, 499), (20, 0), (300, 320)])
def test_e1_ddim_step(t: int, u: int) -> None:
    """E1: in the note's eq. 12 one parenthesis multiplies eps and the square roots stand alone."""
    schedule, (x0, eps) = Schedule.scaled_linear(), pair()
    x, (a, b) = schedule.noise(x0, eps, t), (schedule.abar[t], schedule.abar[u])
    right = b.sqrt() * x0 + (1 - b).sqrt() * eps
    assert_close(move(schedule, x, eps, t, u), right, **EXACT)
    printed = b.sqrt() * ((x - (1 - a).sqrt()) / a.sqrt() + (1 - b).sqrt()) * eps
    assert (printed - right).abs().max() > 1


def test_e2_ode_form() -> None:
    """E2: the increment is that of sqrt(1/abar - 1), not of sqrt(1 - abar)."""
    schedule, (x, eps) = Schedule.linear(), pair()
    a, b = schedule.abar[600], schedule.abar[500]
    left = move(schedule, x, eps, 600, 500) / b.sqrt() - x / a.sqrt()
    assert_close(left, (((1 - b) / b).sqrt() - ((1 - a) / a).sqrt()) * eps, **EXACT)
    printed = ((1 - b).sqrt() - (1 - a).sqrt()) * eps
    assert (left - printed).abs().max() > 0.5
    # the ODE itself: d(x / sqrt(abar)) / d sigma-bar tends to eps for hops of one level
    sigma_bar = (1 / schedule.abar - 1).sqrt()
    slope = move(schedule, x, eps, 600, 599) / schedule.abar[599].sqrt() - x / a.sqrt()
    assert_close(slope / (sigma_bar[599] - sigma_bar[600]), eps, atol=1e-10, rtol=0)


def test_e3_inversion() -> None:
    """E3: the same move upwards undoes a step exactly while eps is frozen; eq. 14 does not."""
    schedule, (x, eps) = Schedule.linear(), pair()
    y = move(schedule, x, eps, 600, 580)
    assert_close(move(schedule, y, eps, 580, 600), x, **EXACT)
    a, b = schedule.abar[600], schedule.abar[580]
    closed = (a / b).sqrt() * y + ((1 - a).sqrt() - (a * (1 - b) / b).sqrt()) * eps
    assert_close(closed, x, **EXACT)
    printed = (a / b).sqrt() * y / eps - (a * (1 - b)).sqrt() + (1 - a).sqrt()
    assert (printed - x).abs().max() > 1


@pytest.mark.parametrize("S", [1, 3, 10, 20, 30, 50, 128, 999, 1000])
def test_paths_are_diffusers_timesteps_plus_one(S: int) -> None:
    schedule = NAMED[0]
    for ours, end, config in [
        (schedule.trailing(S), 0, {"timestep_spacing": "trailing"}),
        (schedule.leading(S), 0, {"timestep_spacing": "leading"}),
        (schedule.leading(min(S, 999), 1), 1, {"timestep_spacing": "leading", "steps_offset": 1}),
    ]:
        scheduler = peer(schedule, **config)
        scheduler.set_timesteps(len(ours) - 1)
        assert ours == [*(scheduler.timesteps + 1).tolist(), end]
        assert schedule.check_path(ours) == ours


@pytest.mark.parametrize("S", [5, 20, 40])
@pytest.mark.parametrize("schedule", NAMED, ids=str)
def test_karras_is_even_in_the_root_of_sigma(schedule: Schedule, S: int) -> None:
    """Each time is the whole one nearest to diffusers' ramp between the same two sigmas."""
    path = schedule.karras(S)
    assert schedule.check_path(path) == path
    assert path[0] == 980 and path[-2:] == [1, 0] and len(path) == S + 1
    sigma = ((1 - schedule.abar) / schedule.abar).sqrt()
    ramp = DPMSolverMultistepScheduler(use_karras_sigmas=True)._convert_to_karras(
        sigma[[980, 1]], num_inference_steps=S)
    for t, wanted in zip(path, ramp.tolist(), strict=False):
        root = sigma ** (1 / 7)
        hop = float((root[min(t + 1, 1000)] - root[t - 1]) / 2)
        assert abs(float(root[t]) - wanted ** (1 / 7)) <= hop
    assert len(schedule.karras(schedule.T)) <= schedule.T + 1


@pytest.mark.parametrize("schedule", [*NAMED, Schedule(Schedule.cosine(T=9).abar)])
def test_config_survives_json(schedule: Schedule) -> None:
    again = Schedule.from_config(json.loads(json.dumps(schedule.to_config())))
    assert_close(again.abar, schedule.abar, atol=0, rtol=0)
    assert again.to_config() == schedule.to_config()


def table(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


X = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: Schedule(torch.ones(5)), TypeError, "abar: .*float64.*float32"),
        (lambda s: Schedule([1.0, 0.5]), TypeError, "abar: .*list"),
        (lambda s: Schedule(table(1)), ValueError, r"abar: shape \(1,\)"),
        (lambda s: Schedule(table(0.9, 0.5)), ValueError, r"abar\[0\] is 0.9"),
        (lambda s: Schedule(table(1, 0.5, 0.5)), ValueError, "abar: must fall strictly"),
        (lambda s: Schedule(table(1, 0.5, 0)), ValueError, "abar: .*> 0; ends at 0"),
        (lambda s: Schedule(table(1, float("nan"))), ValueError, "abar: must fall"),
        (lambda s: Schedule.linear(T=0), ValueError, "T: 0 is not an int >= 1"),
        (lambda s: Schedule.linear(start=0.1), ValueError, "start, end: 0.1, 0.02"),
        (lambda s: Schedule.cosine(max_beta=1.0), ValueError, "max_beta: .*1.0"),
        (lambda s: Schedule.from_config({"name": "cos"}), ValueError, "'cos' is not one of linear"),
        (lambda s: s.level(-1), ValueError, r"t: -1 is outside 0\.\.1000"),
        (lambda s: s.level(1001), ValueError, r"t: 1001 is outside 0\.\.1000"),
        (lambda s: s.noise(X, X, 0.5), TypeError, "t: expected an int .* float"),
        (lambda s: s.noise(X, X, torch.tensor([1, -1])), ValueError, r"\[1, -1\] .* 0\.\.1000"),
        (lambda s: s.noise(X, X, torch.tensor([1, 1001])), ValueError, r"1001\] .* 0\.\.1000"),
        (lambda s: s.denoise(X, X, torch.tensor([1, 2, 3])), ValueError, r"t: .*\(3,\).*\(2,\)"),
        (lambda s: s.denoise(X, X, torch.tensor([0.5, 1])), ValueError, "t: torch.float32"),
        (lambda s: s.beta(3, 3), ValueError, "t, s: 3, 3 must satisfy"),
        (lambda s: s.trailing(0), ValueError, r"S: 0 is not an int in 1\.\.1000"),
        (lambda s: s.leading(1000, 1), ValueError, r"S: 1000 is not an int in 1\.\.999"),
        (lambda s: s.leading(10, 2), ValueError, "offset: 2 is neither"),
        (lambda s: s.karras(0), ValueError, r"S: 0 is not an int in 1\.\.1000"),
        (lambda s: s.karras(9, rho=0), ValueError, "rho, start: 0, 0.98 must be > 0"),
        (lambda s: s.karras(9, start=1.1), ValueError, "rho, start: 7.0, 1.1 must be"),
        (lambda s: s.check_path([40, 60, 0]), ValueError, "path: 40 -> 60 at position 0"),
        (lambda s: s.check_path([40, 40, 0]), ValueError, "path: 40 -> 40"),
        (lambda s: s.check_path([1001, 0]), ValueError, r"path: 1001 is not an int in 0\.\.1000"),
        (lambda s: s.check_path([10.0, 0]), ValueError, "path: 10.0 is not an int"),
        (lambda s: s.check_path([5]), ValueError, "fewer than 2"),
    ],
)
def test_bad_input_is_named_in_one_line(call, error, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call(Schedule.linear())
    assert "\n" not in str(caught.value)
