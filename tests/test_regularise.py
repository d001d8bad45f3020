"""Regularised noise: closed forms of both losses, and what a step does to noise and to a ramp."""

import math

import pytest
import torch
from torch.testing import assert_close

from coursekit.diffusion.regularise import autocorrelation, divergence, regularised
from coursekit.diffusion.sample import invert, last
from coursekit.diffusion.schedule import Schedule


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def white(b=2, h=16, w=16, seed=0):
    return torch.randn(b, 4, h, w, generator=seeded(seed), dtype=torch.float64)


def smooth(b=2, h=16, w=16):
    """A wave a channel: noise that a flat wall gives in an inversion."""
    x = torch.arange(w, dtype=torch.float64) / w
    phase = torch.arange(4, dtype=torch.float64).view(1, 4, 1, 1)
    return (2 ** 0.5 * torch.sin(2 * math.pi * x + phase)).expand(b, 4, h, w)


def constantly(e):
    return lambda x, t: e


def settle(e, **more):
    return regularised(constantly(e), **more)(e, 500)


# ---- the losses

@pytest.mark.parametrize("by", [1, 2, 3])
def test_a_wave_correlates_with_itself_as_its_cosine(by, monkeypatch):
    """One level (a side of 8): along x as cos(2 pi by / 8), along y wholly."""
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([by]))
    want = 4 * (math.cos(2 * math.pi * by / 8) ** 2 + 1)
    assert_close(autocorrelation(smooth(h=8, w=8)), torch.full((2,), want, dtype=torch.float64))


def test_a_shift_is_never_0():
    """Shifted by 0 noise is its own square, and "uncorrelated" would ask for none."""
    checkers = ((torch.arange(4)[:, None] + torch.arange(4)) % 2 * 2.0 - 1).expand(1, 4, 4, 4)
    for seed in range(20):
        assert_close(autocorrelation(checkers, seeded(seed)), torch.tensor([8.0]))  # of by = 1
    for seed in range(20):
        assert autocorrelation(white(1, 64, 64), seeded(seed)) < 0.1  # of by = 0: 8 and more


def test_the_pyramid_goes_down_to_a_side_of_8(monkeypatch):
    sides = []
    monkeypatch.setattr(torch, "randint",
                        lambda low, high, *_, **__: sides.append(high) or torch.tensor([1]))
    autocorrelation(white(h=64, w=96))
    assert sides == [32, 16, 8, 4]


def test_the_divergence_is_that_of_gaussians():
    e = 1.5 * white(3) + 0.4
    var, mean = e.flatten(1).var(1), e.flatten(1).mean(1)
    law = torch.distributions.Normal(mean, var.sqrt())
    unit = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    assert_close(divergence(e), 2 * torch.distributions.kl_divergence(law, unit))


# ---- the steps

def test_without_weights_it_is_the_predictor_itself():
    e = smooth()
    assert torch.equal(settle(e, lambda_ac=0, lambda_kl=0), e)
    path, schedule = [600, 300, 0], Schedule.linear()
    plain = last(invert(constantly(e), schedule, e, path)).x
    free = regularised(constantly(e), lambda_ac=0.0, lambda_kl=0.0)
    assert torch.equal(last(invert(free, schedule, e, path)).x, plain)


def test_smooth_noise_becomes_less_so_and_white_noise_stays():
    e, n = smooth(), white()
    once, often = (settle(e, rounds=rounds, generator=seeded()) for rounds in (5, 50))
    losses = [float(sum(autocorrelation(x, seeded(s)).sum() for s in range(20)))
              for x in (e, once, often)]
    assert losses[1] < 0.9 * losses[0] and losses[2] < 0.5 * losses[0]
    assert (settle(n, generator=seeded()) - n).abs().max() < 0.02 < (once - e).abs().max()


def test_mean_and_variance_come_to_those_of_noise():
    e = 2 * white() + 1
    out = settle(e, lambda_ac=0, lambda_kl=1e3, rounds=50)
    assert (divergence(out) < 0.02 * divergence(e)).all()


def test_a_step_does_the_same_to_a_pixel_at_any_size(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([2]))
    small = smooth(1, 8, 8)
    large = small.repeat(1, 1, 1, 6)  # not square, the same waves; its variance differs by 1/n
    a, b = (settle(e, lambda_kl=0) for e in (small, large))
    assert_close(b, a.repeat(1, 1, 1, 6))
    assert (a - small).abs().max() > 1e-2


def test_rows_do_not_touch_each_other():
    e = torch.cat([smooth(1), white(1)])
    alone = [settle(row, generator=seeded()) for row in e.split(1)]
    assert_close(settle(e, generator=seeded()), torch.cat(alone))


def test_the_shifts_come_from_the_generator_alone():
    e, state = smooth(), torch.random.get_rng_state()
    a, again, other = (settle(e, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(a, again) and not torch.equal(a, other)
    assert torch.equal(torch.random.get_rng_state(), state) and not a.requires_grad


@pytest.mark.parametrize("wrong, words", [
    ({"lambda_ac": -1.0}, "lambda_ac=-1.0: accepted is a finite number >= 0"),
    ({"lambda_kl": float("nan")}, "lambda_kl=nan: accepted is"),
    ({"rounds": 0}, "rounds=0: accepted is a whole number >= 1"),
    ({"rolls": 2.5}, "rolls=2.5: accepted is a whole number"),
])
def test_a_wrong_argument_is_named(wrong, words):
    with pytest.raises(ValueError) as refusal:
        regularised(constantly(smooth()), **wrong)
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)
