"""Ways back under guidance: exact where they say so, better than plain where they optimise."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toys import TRIANGLE, Mixture

from coursekit.diffusion.guided import ENOUGH, LR, direct, null_text
from coursekit.diffusion.inversion import (
    ddim_line, edict, edict_invert, edit_friendly, fixed_point, replay,
)
from coursekit.diffusion.predict import Eps, guided
from coursekit.diffusion.sample import State, ddim, invert, last
from coursekit.diffusion.schedule import Schedule
from coursekit.nets import tiny
from coursekit.nets.latent import Latent, Text

LINEAR = Schedule.linear()
ALL = TRIANGLE.eps(LINEAR)
ONE = Mixture(TRIANGLE.means[:1].tolist(), TRIANGLE.std).eps(LINEAR)  # knows the class
OTHER = Mixture(TRIANGLE.means[1:2].tolist(), TRIANGLE.std).eps(LINEAR)
PROMPT, TARGET = "a photo of a cat", "a photo of a dog"


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 100) -> Tensor:
    noise = torch.randn(n, 2, generator=seeded(), dtype=torch.float64)
    return TRIANGLE.means[0] + TRIANGLE.std * noise


def pivot_of(S: int = 20) -> list[State]:
    return list(invert(ONE, LINEAR, points(), LINEAR.trailing(S)))


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def shifted(null: Tensor) -> Eps:
    """The predictor of all classes, moved by an embedding that is a point of the plane."""
    return lambda x, t: ALL(x - math.sqrt(LINEAR.level(t)) * null, t)


def texts(sd: Latent) -> tuple:
    """(embedding -> Eps, the empty text's embedding) of a model."""
    empty = sd.text("")
    return lambda tokens: sd.eps(Text(tokens, empty.pooled)), empty.tokens


@cache
def wide() -> Latent:
    """The tiny model in float64."""
    sd = tiny.latent()
    return replace(sd, unet=deepcopy(sd.unet).double(),
                   encoders=tuple(deepcopy(e).double() for e in sd.encoders))


def latents(sd: Latent, n: int = 1) -> Tensor:
    return 0.5 * sd.noise(n, seeded()).to(sd.unet.dtype)


# ---- why guidance breaks inversion


def test_guidance_leaves_the_pivot_however_many_hops_while_one_weight_comes_back() -> None:
    """Inverted at w = 1: the error at w = 7.5 stays, at w = 1 it falls with the hops."""
    x, error = points(), {}
    for S in (50, 400):
        path = LINEAR.trailing(S)
        code = last(invert(ONE, LINEAR, x, path)).x
        for w in (1, 7.5):
            back = last(ddim(guided(ALL, ONE, w), LINEAR, code, path)).x
            error[w, S] = rms(back - x)
    assert error[1, 50] / error[1, 400] > 5
    assert error[7.5, 50] / error[7.5, 400] < 1.5
    assert error[7.5, 400] > 5 * error[1, 400]


# ---- direct


@pytest.mark.parametrize("w", [1, 3, 7.5])
def test_direct_inversion_walks_the_pivot_at_any_weight(w: float) -> None:
    eps, pivot = guided(ALL, ONE, w), pivot_of()
    hops = list(direct(eps, LINEAR, pivot))
    states = list(replay(eps, LINEAR, hops))
    for wanted, hop, state in zip(reversed(pivot), hops, states, strict=True):
        assert wanted.t == hop.t == state.t
        assert_close(hop.x, wanted.x, atol=1e-12, rtol=0)
        assert_close(state.x, hop.x, atol=0, rtol=0)


def test_the_offsets_are_what_the_sampler_misses_the_pivot_by() -> None:
    """Zero where nothing is missed; else z* minus one DDIM step from the pivot."""
    path = LINEAR.trailing(20)
    eps = guided(ALL, ONE, 7.5)
    drawn = list(ddim(eps, LINEAR, torch.randn(9, 2, generator=seeded()).double(), path))
    assert max(float(h.noise.abs().max()) for h in list(direct(eps, LINEAR, drawn))[1:]) < 1e-14
    hops = list(direct(eps, LINEAR, pivot := pivot_of()))
    for now, then, hop in zip(pivot[:0:-1], pivot[-2::-1], hops[1:], strict=True):
        step = list(ddim(eps, LINEAR, now.x, [now.t, then.t]))[-1].x
        assert_close(hop.noise, then.x - step, atol=1e-12, rtol=0)
    assert rms(hops[-1].noise) > 1e-4


def test_a_target_that_takes_the_offsets_moves_by_them() -> None:
    hops = list(direct(guided(ALL, ONE, 7.5), LINEAR, pivot_of()))
    states = list(replay(OTHER, LINEAR, hops))
    for (before, after), hop in zip(pairwise(states), hops[1:], strict=True):
        a, b = ddim_line(LINEAR, before.t, after.t)
        assert_close(after.x, a * before.x + b * OTHER(before.x, before.t) + hop.noise,
                     atol=1e-12, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("w", [1.0, 7.5])
def test_direct_inversion_returns_latents(sd, w: float) -> None:
    """Three topologies, in single precision, and pictures that are not square."""
    x = sd.noise(1, seeded(), (16 * sd.factor, 24 * sd.factor)) * 0.5
    pivot = list(invert(sd.eps(PROMPT), sd.schedule, x, sd.path(4)))
    eps = sd.eps(PROMPT, w=w)
    hops = list(direct(eps, sd.schedule, pivot))
    for wanted, state in zip(reversed(pivot), replay(eps, sd.schedule, hops), strict=True):
        assert_close(state.x, wanted.x, atol=1e-5, rtol=0)
    assert rms(hops[-1].noise) > 1e-5


# ---- negative prompt


def test_with_the_own_prompt_as_negative_no_weight_matters_to_the_bit() -> None:
    path, code = LINEAR.trailing(20), pivot_of()[-1].x
    plain = last(ddim(ONE, LINEAR, code, path)).x
    for w in (1, 3, 7.5):
        assert torch.equal(last(ddim(guided(ONE, ONE, w), LINEAR, code, path)).x, plain)


@torch.no_grad()
def test_negative_prompt_reconstruction_of_latents_has_no_weight(sd) -> None:
    """Bit for bit where both halves are computed; w = 1 computes one, with other kernels."""
    path, x = sd.path(4), 0.5 * sd.noise(1, seeded())
    code = last(invert(sd.eps(PROMPT), sd.schedule, x, path)).x
    back = {w: last(ddim(sd.eps(PROMPT, PROMPT, w), sd.schedule, code, path)).x
            for w in (1, 3, 7.5)}
    assert torch.equal(back[3], back[7.5])
    assert_close(back[3], back[1], atol=1e-4, rtol=0)
    assert rms(last(ddim(sd.eps(PROMPT, "", 7.5), sd.schedule, code, path)).x - back[1]) > 1e-3


# ---- null-text


def test_null_text_brings_the_toy_back() -> None:
    pivot, null = pivot_of(), torch.zeros(len(points()), 2).double()
    found = list(null_text(shifted, ONE, LINEAR, pivot, null, 7.5, iterations=30))
    plain = last(ddim(guided(ALL, ONE, 7.5), LINEAR, pivot[-1].x, LINEAR.trailing(20))).x
    assert [s.t for s in found] == LINEAR.trailing(20)
    assert rms(found[-1].x - pivot[0].x) < 0.2 * rms(plain - pivot[0].x)
    for state in found[1:]:
        assert state.losses[-1] <= state.losses[0] + 1e-12


def test_null_text_returns_latents_better_than_plain_guidance(sd) -> None:
    """Three topologies, under no_grad as notebooks are; only the embedding learns."""
    path, x = sd.path(3), 0.5 * sd.noise(1, seeded())
    with torch.no_grad():
        pivot = list(invert(sd.eps(PROMPT), sd.schedule, x, path))
        plain = last(ddim(sd.eps(PROMPT, sd.text(""), 7.5), sd.schedule, pivot[-1].x, path)).x
        null_eps, null = texts(sd)
        found = list(null_text(null_eps, sd.eps(PROMPT), sd.schedule, pivot, null, iterations=6))
    assert float((found[-1].x - x).square().mean()) < float((plain - x).square().mean())
    assert all(s.losses[-1] < s.losses[0] for s in found[1:] if len(s.losses) > 1)
    assert any(len(s.losses) > 2 for s in found[1:])
    assert not torch.equal(found[-1].null, null) and not found[-1].null.requires_grad
    assert all(p.grad is None for p in sd.unet.parameters())


@torch.no_grad()
def test_the_embeddings_found_give_the_states_found() -> None:
    sd = wide()
    pivot = list(invert(sd.eps("a cat"), sd.schedule, latents(sd, 2), sd.schedule.trailing(3)))
    null_eps, null = texts(sd)
    null = null.repeat(2, 1, 1)  # one a picture
    found = list(null_text(null_eps, sd.eps("a cat"), sd.schedule, pivot, null, 5.0, 3))
    nulls, x = {a.t: Text(b.null) for a, b in pairwise(found)}, pivot[-1].x
    for a, b, goal in zip(found, found[1:], pivot[-2::-1], strict=False):
        x = last(ddim(sd.eps("a cat", nulls[a.t], 5.0), sd.schedule, x, [a.t, b.t])).x
        assert_close(x, b.x, atol=1e-10, rtol=0)
        assert abs(b.losses[-1] - float((x - goal.x).square().mean())) < 1e-12
    for row in range(2):  # and a picture alone finds its own
        alone = [State(s.t, s.x[row:row + 1]) for s in pivot]
        other = list(null_text(null_eps, sd.eps("a cat"), sd.schedule, alone, null[:1], 5.0, 3))
        assert_close(other[-1].x, found[-1].x[row:row + 1], atol=1e-9, rtol=0)


def test_without_updates_it_is_plain_guidance_and_at_weight_one_nothing_is_to_learn() -> None:
    pivot, null = pivot_of(), torch.full((2,), 0.1, dtype=torch.float64)
    plain = last(ddim(guided(shifted(null), ONE, 7.5), LINEAR, pivot[-1].x, LINEAR.trailing(20))).x
    found = list(null_text(shifted, ONE, LINEAR, pivot, null, 7.5, iterations=0))
    assert_close(found[-1].x, plain, atol=1e-12, rtol=0)
    assert all(torch.equal(s.null, null) and len(s.losses) == 1 for s in found[1:])
    coarse = pivot_of(4)  # so coarse that the losses are above what ends a hop
    one = list(null_text(shifted, ONE, LINEAR, coarse, null, w=1, iterations=3))
    assert max(len(s.losses) for s in one[1:]) == 4
    assert all(torch.equal(s.null, null) for s in one[1:])


def test_the_rate_falls_by_half_and_a_hop_that_is_good_enough_learns_nothing() -> None:
    """Adam's first update is its rate, whatever the gradient: 1e-2 (1 - i / 2S)."""
    pivot = [State(s.t, s.x + 0.5 * i) for i, s in enumerate(pivot_of(5))]
    null = torch.zeros(2, dtype=torch.float64)
    found = list(null_text(shifted, ONE, LINEAR, pivot, null, 7.5, iterations=1))
    moved = [(b.null - (a.null if a.null is not None else null)).abs().max()
             for a, b in pairwise(found)]
    wanted = [LR * (1 - i / 10) for i in range(5)]
    assert_close(torch.stack(moved), torch.tensor(wanted).double(), atol=0, rtol=1e-5)
    near = list(ddim(guided(ALL, ONE, 7.5), LINEAR, pivot[-1].x, LINEAR.trailing(5)))
    near = [State(s.t, s.x + 0.9 * math.sqrt(ENOUGH)) if s.t == 800 else s for s in near[:2]]
    assert torch.equal(list(null_text(shifted, ONE, LINEAR, near, null))[-1].null, null)
    near[1].x = near[1].x + 0.2 * math.sqrt(ENOUGH)
    assert not torch.equal(list(null_text(shifted, ONE, LINEAR, near, null))[-1].null, null)


# ---- the exact schemes run on latents


@torch.no_grad()
def test_edict_comes_back_from_latents_under_guidance() -> None:
    """The bar: 1e-9 in float64; at the method's own weight."""
    sd, path = wide(), LINEAR.trailing(10)
    x, eps = latents(sd), sd.eps("a cat", w=3.0)
    up = last(edict_invert(eps, sd.schedule, x, path))
    back = last(edict(eps, sd.schedule, up.x, path, up.y))
    assert_close((back.x, back.y), (x, x), atol=1e-9, rtol=0)
    assert rms(up.x - x) > 0.1


@torch.no_grad()
def test_edit_friendly_noise_returns_latents_and_edits_them(sd) -> None:
    """Invert at one weight, sample at it; another prompt draws something else."""
    x, eps = 0.5 * sd.noise(1, seeded()), sd.eps(PROMPT, w=3.5)
    hops = list(edit_friendly(eps, sd.schedule, x, sd.path(4), generator=seeded()))
    assert_close(last(replay(eps, sd.schedule, hops)).x, x, atol=1e-5, rtol=0)
    assert rms(last(replay(sd.eps(TARGET, w=9.0), sd.schedule, hops[2:])).x - x) > 1e-3


@torch.no_grad()
def test_fixed_point_returns_latents_better_than_plain_inversion() -> None:
    sd, path = wide(), LINEAR.trailing(8)
    x, eps = latents(sd), sd.eps("a cat")
    solved = list(fixed_point(eps, sd.schedule, x, path, 30, 1e-6))
    assert max(float(s.residual.max()) for s in solved[1:]) <= 1e-6
    plain = last(ddim(eps, sd.schedule, last(invert(eps, sd.schedule, x, path)).x, path)).x
    back = last(ddim(eps, sd.schedule, solved[-1].x, path)).x
    assert rms(back - x) < 1e-4 < 1e-2 < rms(plain - x)


# ---- bad input

X = torch.zeros(2, 2, dtype=torch.float64)
PIVOT = [State(0, X), State(500, X), State(1000, X)]


def narrow(x: Tensor, t: int) -> Tensor:
    return x[:, :1]


def null(**changes):
    given = {"pivot": PIVOT, "null": torch.zeros(2, dtype=torch.float64), "w": 2.0,
             "iterations": 1} | changes
    return list(null_text(shifted, ONE, LINEAR, **given))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: direct(ONE, LINEAR, PIVOT[:1]), "pivot: accepted are two states or more"),
    (lambda: direct(ONE, LINEAR, X), "pivot: accepted are two states"),
    (lambda: direct(ONE, LINEAR, [PIVOT[0], X]), "pivot: accepted are two states"),
    (lambda: direct(ONE, LINEAR, [*PIVOT, PIVOT[0]]), "path: 0 -> 0"),
    (lambda: direct(ONE, LINEAR, [State(1001, X), *PIVOT]), "path: 1001"),
    (lambda: direct(ONE, LINEAR, [State(7, X[:1]), *PIVOT]), "pivot: at t=7 torch.float64 (1, 2)"),
    (lambda: direct(ONE, LINEAR, [State(7, X.float()), *PIVOT]), "pivot: at t=7 torch.float32"),
    (lambda: direct(ONE, LINEAR, [State(7, X / 0), *PIVOT]), "x: 4 of 4 values are NaN"),
    (lambda: list(direct(narrow, LINEAR, PIVOT)), "eps: returned shape (2, 1)"),
    (lambda: null(iterations=-1), "iterations: -1 is not an int >= 0"),
    (lambda: null(iterations=1.5), "iterations: 1.5"),
    (lambda: null(w=math.nan), "w: nan is not a finite number"),
    (lambda: null(null=torch.zeros(2).half()), "null: torch.float16, accepted is"),
    (lambda: null(null="a cat"), "null: str, accepted is"),
    (lambda: null(pivot=PIVOT[:1]), "pivot: accepted are two states"),
])  # fmt: skip
def test_bad_input_is_named_in_one_line(call, words: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refusal:
        call()
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)
