"""Round trips that must close, equations that must be solved, and the ways in which they fail."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import UNet2DModel
from test_schedule import EXACT, NAMED, pair
from torch import Tensor
from torch.testing import assert_close
from toys import TRIANGLE

from coursekit.diffusion.inversion import (
    Hop,
    ddim_line,
    edict,
    edict_invert,
    edit_friendly,
    fixed_point,
    replay,
)
from coursekit.diffusion.predict import Eps, from_diffusers, from_network
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.diffusion.schedule import Schedule
from coursekit.nets.unet import UNet

LINEAR, SCALED = NAMED[:2]
TOY = TRIANGLE.eps(LINEAR)


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def points(n: int = 200) -> Tensor:
    return TRIANGLE.sample(n, seeded())


def predictors() -> dict[str, tuple[Eps, Tensor]]:
    """An exact score, a U-Net of ours and one of diffusers', all in float64, each with an x."""
    ours = UNet(channels=(8, 16), encoder=(1, 1), decoder=(1, 1), attention=(1,), head_dim=8,
                groups=4, unshuffle=2)
    theirs = UNet2DModel(sample_size=8, layers_per_block=1, block_out_channels=(8, 16),
                         down_block_types=("DownBlock2D",) * 2, norm_num_groups=4,
                         up_block_types=("UpBlock2D",) * 2)
    for net in (ours, theirs):
        net.double().eval().requires_grad_(False)
        for w in net.parameters():  # fresh networks begin with zeros that would hide mistakes
            w.add_(0.05 * torch.randn(w.shape, generator=seeded(), dtype=w.dtype))
    x = torch.rand(2, 3, 8, 8, generator=seeded(), dtype=torch.float64) * 2 - 1
    return {"score": (TOY, points()), "unet": (from_network(ours, LINEAR, "v"), x),
            "diffusers": (from_diffusers(theirs, LINEAR, "v"), x)}


@pytest.fixture(params=["score", "unet", "diffusers"])
def world(request) -> tuple[Eps, Tensor]:
    return predictors()[request.param]


@pytest.mark.parametrize(("t", "u"), [(1000, 980), (980, 1000), (20, 0), (0, 20), (7, 7)])
def test_a_ddim_move_is_one_line(t: int, u: int) -> None:
    x, eps = pair()
    a, b = ddim_line(LINEAR, t, u)
    assert_close(a * x + b * eps, LINEAR.noise(LINEAR.denoise(x, eps, t), eps, u), **EXACT)


# ---- EDICT ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "S", "p"), [
    ("score", 50, 0.93), ("score", 20, 1.0), ("unet", 9, 0.93), ("diffusers", 9, 0.8)])
def test_edict_comes_back_from_either_end(kind: str, S: int, p: float) -> None:
    """The bar: 1e-9 in float64, for any predictor, with twins that start apart."""
    eps, x = predictors()[kind]
    path, y = LINEAR.trailing(S), x + 0.01 * torch.sin(9 * x)
    up = last(edict_invert(eps, LINEAR, x, path, y, p))
    down = last(edict(eps, LINEAR, up.x, path, up.y, p))
    assert (up.t, down.t) == (1000, 0)
    assert rms(up.x - x) > 0.1  # it went somewhere
    assert_close((down.x, down.y), (x, y), atol=1e-9, rtol=0)
    noise = torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    down = last(edict(eps, LINEAR, noise, path, p=p))
    up = last(edict_invert(eps, LINEAR, down.x, path, down.y, p))
    assert_close((up.x, up.y), (noise, noise), atol=1e-9, rtol=0)


def test_edict_needs_both_twins_to_come_back() -> None:
    path = LINEAR.trailing(20)
    up = last(edict_invert(TOY, LINEAR, points(), path))
    assert rms(last(edict(TOY, LINEAR, up.x, path, up.x)).x - points()) > 1e-6


def test_edict_is_ddim_while_eps_is_frozen() -> None:
    x, eps = pair()
    twins = list(edict(lambda x, t: eps, LINEAR, x, path := LINEAR.trailing(10)))
    for twin, state in zip(twins, ddim(lambda x, t: eps, LINEAR, x, path), strict=True):
        assert twin.t == state.t
        assert_close((twin.x, twin.y), (state.x, state.x), **EXACT)


@pytest.mark.parametrize("p", [0.93, 0.5])
def test_blending_shrinks_the_difference_by_p_squared_and_inversion_stretches_it(p) -> None:
    """What float32 suffers from: rounding of the difference grows by p^-2 a hop on the way up."""
    x, eps = pair()
    y, path = x + 1e-3, [1000, 900, 500, 0]
    down = list(edict(lambda x, t: eps, LINEAR, x, path, y, p))
    up = list(edict_invert(lambda x, t: eps, LINEAR, x, path, y, p))
    for states in (down, up):
        for before, after in pairwise(states):
            growth = math.sqrt(LINEAR.level(after.t) / LINEAR.level(before.t))
            growth *= p**2 if after.t < before.t else p**-2
            assert_close(after.y - after.x, growth * (before.y - before.x), atol=0, rtol=1e-9)


def test_edict_approaches_ddim_with_more_hops() -> None:
    x, gaps = torch.randn(200, 2, generator=seeded()).double(), []
    for S in (50, 100, 200):
        path = LINEAR.trailing(S)
        gaps.append(rms(last(edict(TOY, LINEAR, x, path)).x - last(ddim(TOY, LINEAR, x, path)).x))
    assert gaps[0] > gaps[1] > gaps[2] > 0


def test_float32_edict_loses_digits_that_float64_keeps() -> None:
    x, path, errors = points(), LINEAR.trailing(50), {}
    for dtype in (torch.float32, torch.float64):
        start = x.to(dtype)

        def eps(x: Tensor, t: int, dtype: torch.dtype = dtype) -> Tensor:
            return TOY(x.double(), t).to(dtype)

        up = last(edict_invert(eps, LINEAR, start, path))
        back = last(edict(eps, LINEAR, up.x, path, up.y))
        assert back.x.dtype is dtype
        errors[dtype] = rms(back.x - start)
    assert errors[torch.float64] < 1e-12 and errors[torch.float32] > 5e-7


# ---- edit-friendly -------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("path", [LINEAR.trailing(6), LINEAR.leading(10, 1)])
def test_replay_returns_the_picture(world, path: list[int], eta: float) -> None:
    """Exact if the last noise is kept, also when entered later; the path may end at level 1."""
    eps, x = world
    hops = list(edit_friendly(eps, LINEAR, x, path, eta, seeded()))
    assert [h.t for h in hops] == path
    for start in (0, 3):
        for hop, state in zip(hops[start:], replay(eps, LINEAR, hops[start:]), strict=True):
            assert hop.t == state.t
            assert_close(hop.x, state.x, atol=0, rtol=0)
    assert_close(state.x, x, **EXACT)


def test_the_states_are_noised_copies_with_noise_of_their_own() -> None:
    x = torch.full((50_000, 1), 0.7, dtype=torch.float64)
    hops = list(edit_friendly(lambda x, t: x, LINEAR, x, [1000, 600, 300, 0], generator=seeded()))
    n = torch.cat([(h.x - math.sqrt(LINEAR.level(h.t)) * x) / math.sqrt(1 - LINEAR.level(h.t))
                   for h in hops[:3]], 1)  # (n, 3)
    assert_close(torch.cov(n.T), torch.eye(3).double(), atol=4 * math.sqrt(2 / len(x)), rtol=0)


def test_z_is_larger_than_normal_and_correlated() -> None:
    """With an eps that knows x_0 = 0: Var z = 2 (1 - abar_t) / beta - 1, neighbours negative."""
    n, path = 100_000, [1000, 980, 960, 0]
    x = torch.zeros(n, 1, dtype=torch.float64)
    hops = list(edit_friendly(lambda x, t: x / math.sqrt(1 - LINEAR.level(t)), LINEAR, x, path,
                              generator=seeded()))
    z = torch.cat([h.noise / h.sd for h in hops[1:3]], 1)  # (n, 2)
    wanted = [2 * (1 - LINEAR.level(t)) / LINEAR.beta(t, s) - 1 for t, s in ((1000, 980),
                                                                            (980, 960))]
    assert_close(z.var(0), torch.tensor(wanted).double(), atol=0, rtol=4 * math.sqrt(2 / n))
    assert wanted[0] > 5
    room = 1 - LINEAR.level(980)
    between = -math.sqrt(room * (1 - LINEAR.level(960) - hops[2].sd**2)) / (hops[1].sd * hops[2].sd)
    error = 4 * math.sqrt((wanted[0] * wanted[1] + between**2) / n)
    assert abs(float(torch.cov(z.T)[0, 1]) - between) < error
    assert between / math.sqrt(wanted[0] * wanted[1]) < -0.4


@pytest.mark.parametrize("stride", [1, 20])
def test_without_the_last_noise_the_error_is_the_last_denoising(stride: int) -> None:
    """Data N(0, s^2): RMS s b / sqrt(a^2 s^2 + b^2) at the last time, 0.01 at t = 1."""
    s, path = 0.5, [1000, 500, stride, 0]

    def eps(x: Tensor, t: int) -> Tensor:
        level = LINEAR.level(t)
        return math.sqrt(1 - level) * x / (level * s**2 + 1 - level)

    x = s * torch.randn(20_000, 1, generator=seeded(), dtype=torch.float64)
    hops = list(edit_friendly(eps, LINEAR, x, path, generator=seeded(4), keep_last=False))
    level = LINEAR.level(stride)
    wanted = s * math.sqrt((1 - level) / (level * s**2 + 1 - level))
    error = rms(last(replay(eps, LINEAR, hops)).x - x)
    assert abs(error / wanted - 1) < 4 / math.sqrt(2 * len(x))
    assert_close(hops[-1].x, hops[-1].x0, atol=0, rtol=0)


def test_a_replay_with_another_predictor_edits_and_later_entry_edits_less() -> None:
    def moved(x: Tensor, t: int) -> Tensor:  # the same law, shifted by 1 along both axes
        return TOY(x - math.sqrt(LINEAR.level(t)), t)

    x = points()
    hops = list(edit_friendly(TOY, LINEAR, x, LINEAR.trailing(50), generator=seeded()))
    change = [rms(last(replay(moved, LINEAR, hops[skip:])).x - x) for skip in (0, 25, 40, 48)]
    assert change == sorted(change, reverse=True)
    assert change[0] > 0.8 and change[-1] < 0.2


# ---- fixed point ---------------------------------------------------------------------------


def test_one_iteration_is_plain_inversion(world) -> None:
    eps, x = world
    path = LINEAR.trailing(10)
    solved = list(fixed_point(eps, LINEAR, x, path, iterations=1))
    for ours, plain in zip(solved, invert(eps, LINEAR, x, path), strict=True):
        assert ours.t == plain.t
        assert_close(ours.x, plain.x, **EXACT)
    assert [s.calls for s in solved] == [0] + [1] * 10


@pytest.mark.parametrize(("kind", "S"), [
    ("score", 10), ("score", 20), ("score", 50), ("unet", 6), ("diffusers", 5)])
def test_solved_hops_come_back(kind: str, S: int) -> None:
    eps, x = predictors()[kind]
    path = LINEAR.trailing(S)
    solved = list(fixed_point(eps, LINEAR, x, path, iterations=100, tol=1e-12))
    assert max(float(s.residual.max()) for s in solved[1:]) <= 1e-12
    assert_close(last(ddim(eps, LINEAR, solved[-1].x, path)).x, x, atol=1e-9, rtol=0)
    plain = last(ddim(eps, LINEAR, last(invert(eps, LINEAR, x, path)).x, path)).x
    assert rms(plain - x) > 1e-4


def test_full_steps_stall_where_the_map_does_not_contract() -> None:
    """The toy at 20 hops: a rate above 1, and no round trip below 0.01 however long it runs."""
    x, path, error = points(400), LINEAR.trailing(20), {}
    for iterations in (16, 64):
        solved = list(fixed_point(TOY, LINEAR, x, path, iterations, adaptive=False))
        assert max(float(s.rate.max()) for s in solved[1:]) > 1
        assert max(float(s.residual.max()) for s in solved[1:]) > 0.1
        error[iterations] = rms(last(ddim(TOY, LINEAR, solved[-1].x, path)).x - x)
    assert min(error.values()) > 0.01


@pytest.mark.parametrize("product", [-3.0, -0.9, 0.5, 0.85])
def test_the_rate_is_the_contraction_factor_and_one_line_is_solved_at_once(product) -> None:
    """For eps = k x the factor is |B k|; a full step measures it and the second one lands."""
    x, path = pair()[0], [500, 0]
    A, B = ddim_line(LINEAR, 0, 500)
    k = product / B
    solved = last(fixed_point(lambda x, t: k * x, LINEAR, x, path, iterations=5, tol=1e-12))
    assert_close(solved.rate, torch.full((4,), abs(product)).double())
    assert_close(solved.x, A * x / (1 - product), **EXACT)
    assert solved.calls <= 4
    full = last(fixed_point(lambda x, t: k * x, LINEAR, x, path, 20, 1e-12, adaptive=False))
    assert (rms(full.x - A * x / (1 - product)) > 1e6) == (product == -3.0)


def test_residuals_only_fall_and_solved_rows_keep_their_step() -> None:
    """At ten hops a step often makes things worse: it must be taken back, row by row."""
    x, path = points(), LINEAR.trailing(10)
    for top in (900, 300):
        way, runs = [top, top - 100], []
        start = LINEAR.noise(x, torch.randn(x.shape, generator=seeded(), dtype=x.dtype), way[1])
        for n in range(1, 25):
            runs.append(last(fixed_point(TOY, LINEAR, start, way, n, 1e-13)))
        for fewer, more in pairwise(runs):
            assert (more.residual <= fewer.residual).all()
    assert min(float(s.step.min()) for s in fixed_point(TOY, LINEAR, x, path, 60, 1e-9)
               if s.step is not None) > 0.02


def test_rows_do_not_disturb_each_other() -> None:
    path, x = LINEAR.trailing(20), points(6)
    together = last(fixed_point(TOY, LINEAR, x, path, 60, 1e-12)).x
    for i in range(0, 6, 2):
        alone = last(fixed_point(TOY, LINEAR, x[i:i + 1], path, 60, 1e-12)).x
        assert_close(alone, together[i:i + 1], atol=1e-9, rtol=0)


def test_the_residual_is_what_it_says() -> None:
    """One call more at the x that was left behind gives the residual of the next iteration."""
    x, path = points(), LINEAR.trailing(20)
    for short, long in zip(*(fixed_point(TOY, LINEAR, x, path[-2:], n, 1e-12, adaptive=False)
                             for n in (5, 6)), strict=True):
        A, B = ddim_line(LINEAR, 0, path[-2])
    left = short.x - (A * x + B * TOY(short.x, path[-2]))
    assert_close(left.square().mean(1).sqrt(), long.residual, **EXACT)
    assert_close(long.x, A * x + B * TOY(short.x, path[-2]), **EXACT)
    assert (short.calls, long.calls) == (5, 6)


# ---- bad input -----------------------------------------------------------------------------

X = torch.zeros(2, 3, 4, 4)
PATH = [9, 5, 0]
NAN = X.clone().index_put_((torch.tensor(0), torch.tensor(0)), torch.tensor(math.nan))


def same(x: Tensor, t: int) -> Tensor:
    return x


def narrow(x: Tensor, t: int) -> Tensor:
    return x[:, :2]


SCHEMES = [edict, edict_invert, edit_friendly, fixed_point]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("x", "path", "error", "words"),
    [
        (X, [0, 9], ValueError, "path: 0 -> 9"),
        (X, [1001, 0], ValueError, r"path: 1001 .* 0\.\.1000"),
        (X, [9], ValueError, "path: .* fewer than 2"),
        (NAN, PATH, ValueError, "x: 16 of 96 values are NaN"),
        (X.long(), PATH, TypeError, "x: .* got torch.int64"),
    ],
)
def test_every_scheme_refuses_what_samplers_refuse(scheme, x, path, error, words) -> None:
    with pytest.raises(error, match=words):
        scheme(same, LINEAR, x, path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_eps_of_another_shape_is_refused(scheme) -> None:
    with pytest.raises(ValueError, match=r"eps: returned shape \(2, 2, 4, 4\)"):
        last(scheme(narrow, LINEAR, X, PATH))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: edict(same, LINEAR, X, PATH, p=0.0), r"p: 0.0 is outside 0 < p <= 1"),
        (lambda: edict_invert(same, LINEAR, X, PATH, p=1.1), "p: 1.1"),
        (lambda: edict(same, LINEAR, X, PATH, X[:1]), r"y: .*\(1, 3, 4, 4\), accepted"),
        (lambda: edict(same, LINEAR, X, PATH, X.double()), "y: torch.float64"),
        (lambda: edict(same, LINEAR, X, PATH, NAN), "16 of 96 values are NaN"),
        (lambda: edit_friendly(same, LINEAR, X, PATH, eta=2.0), r"eta: 2.0 .* \[0, 1\]"),
        (lambda: replay(same, LINEAR, []), "hops: 0 states"),
        (lambda: replay(same, LINEAR, [Hop(9, X), Hop(0, X)]), "hops: 2 states"),
        (lambda: replay(same, LINEAR, [Hop(0, X), Hop(9, X, X, X)]), "path: 0 -> 9"),
        (lambda: fixed_point(same, LINEAR, X, PATH, iterations=0), "iterations: 0 is not an int"),
        (lambda: fixed_point(same, LINEAR, X, PATH, iterations=1.5), "iterations: 1.5"),
        (lambda: fixed_point(same, LINEAR, X, PATH, tol=0.0), "tol: 0.0 is not > 0"),
        (lambda: fixed_point(same, LINEAR, X, PATH, tol=math.nan), "tol: nan"),
        (lambda: ddim_line(LINEAR, 5, -1), r"t: -1 is outside 0\.\.1000"),
    ],
)
def test_bad_input_is_named_in_one_line(call, words: str) -> None:
    """Refused when the scheme is called: no step is needed to find out."""
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_single_precision_stays_single(scheme) -> None:
    x = torch.rand(2, 3, 4, 4, generator=seeded())
    assert last(scheme(lambda x, t: 0.1 * x, LINEAR, x, PATH)).x.dtype is torch.float32


def test_schedules_other_than_linear() -> None:
    x, path = points(), SCALED.leading(50, 1)
    eps = TRIANGLE.eps(SCALED)
    up = last(edict_invert(eps, SCALED, x, path))
    assert_close(last(edict(eps, SCALED, up.x, path, up.y)).x, x, atol=1e-9, rtol=0)
    code = last(fixed_point(eps, SCALED, x, path, 60, 1e-12)).x
    assert_close(last(ddim(eps, SCALED, code, path)).x, x, atol=1e-9, rtol=0)
    cosine = Schedule.cosine()
    hops = list(edit_friendly(TRIANGLE.eps(cosine), cosine, x, cosine.trailing(20)))
    assert_close(last(replay(TRIANGLE.eps(cosine), cosine, hops)).x, x, **EXACT)
