"""SDEdit: closed forms on a Gaussian law, diffusers' own inpainting loop, and exact identities."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from scipy.stats import spearmanr
from torch import nn
from torch.testing import assert_close
from toys import Mixture

from coursekit.diffusion.predict import from_diffusers
from coursekit.diffusion.schedule import Schedule
from coursekit.edits.sdedit import edit

LINEAR, MU, SPREAD = Schedule.linear(), 0.4, 0.3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(schedule):
    """The exact predictor of data N(MU, SPREAD^2)."""
    def eps(x, t):
        level = schedule.level(t)
        return math.sqrt(1 - level) * (x - math.sqrt(level) * MU) / (level * SPREAD**2 + 1 - level)
    return eps


def points(value, n=5):
    return torch.full((n, 1, 1, 1), value, dtype=torch.float64)


class Spy:
    """A predictor that remembers what it was shown; its answer depends on the place."""

    def __init__(self):
        self.seen = {}

    def __call__(self, x, t):
        self.seen[t] = x.clone()
        return torch.tanh(x.roll(1, -1))


@pytest.fixture
def guide(generator):
    return torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.fixture
def mask():
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[0, 2:6, 1:4] = mask[1, :, 5:] = True
    return mask


def kept(x, mask):
    return x.movedim(1, 3)[~mask]


# ---- what it samples

@pytest.mark.parametrize("schedule", [LINEAR, Schedule.scaled_linear(), Schedule.cosine()], ids=str)
@pytest.mark.parametrize("t0", [200, 500, 1000])
def test_without_noise_on_the_way_back_it_is_the_flow_of_the_gaussian(schedule, t0):
    guide, a2 = points(-1.5), schedule.level(t0)

    def run(S):
        return edit(gaussian(schedule), schedule, guide, t0, schedule.trailing(S), eta=0.0,
                    generator=seeded())
    z = torch.randn(guide.shape, generator=seeded(), dtype=torch.float64)
    # the flow keeps a point's distance from the mean in units of the spread at its time
    deviation = math.sqrt(a2) * (guide - MU) + math.sqrt(1 - a2) * z
    want = MU + SPREAD * deviation / math.sqrt(a2 * SPREAD**2 + 1 - a2)
    # hops of finite length err by c / S: two runs cancel it
    assert_close(2 * run(1000) - run(500), want, atol=4e-3, rtol=0)


@pytest.mark.parametrize("t0", [300, 700])
def test_with_noise_on_the_way_back_it_samples_the_posterior(t0):
    n, a2 = 20_000, LINEAR.level(t0)
    out = edit(gaussian(LINEAR), LINEAR, points(-0.5, n), t0, LINEAR.trailing(1000),
               generator=seeded())
    gain = a2 * SPREAD**2 / (a2 * SPREAD**2 + 1 - a2)  # of x_0 on x_t0 / sqrt(abar)
    mean, var = MU + gain * (-0.5 - MU), SPREAD**2 * (1 - gain) + gain**2 * (1 - a2) / a2
    assert abs(out.mean() - mean) < 4 * math.sqrt(var / n) + 5e-3
    assert abs(out.var() / var - 1) < 4 * math.sqrt(2 / n) + 3e-2


@pytest.mark.parametrize("schedule, share", [
    (Schedule.cosine(), 0.0), (Schedule.scaled_linear(), SPREAD * math.sqrt(0.00466))], ids=str)
def test_at_T_the_guide_is_forgotten_only_where_nothing_of_it_survives(schedule, share):
    def run(value):
        return edit(gaussian(schedule), schedule, points(value), 1000, schedule.trailing(500),
                    eta=0.0, generator=seeded())
    assert_close(run(1.0) - run(-1.0), points(2 * share), atol=1e-3, rtol=0)


def test_more_noise_is_more_real_and_less_faithful():
    law = Mixture([[1.0, 0.0], [-0.6, 0.8]], std=0.2)
    predict = law.eps(LINEAR)

    def eps(x, t):
        return predict(x.flatten(1), t).view_as(x)
    guide = torch.tensor([0.4, -1.5], dtype=torch.float64).view(1, 2, 1, 1).expand(500, -1, -1, -1)
    levels, real, far = [50, 150, 250, 350, 500, 700], [], []
    for t0 in levels:
        out = edit(eps, LINEAR, guide, t0, LINEAR.trailing(100), generator=seeded())
        real.append(float(law.log_parts(out.flatten(1), 1.0).logsumexp(1).mean()))
        far.append(float((out - guide).square().sum((1, 2, 3)).mean()))
    assert spearmanr(levels, real).statistic >= 0.9
    assert spearmanr(levels, far).statistic >= 0.9
    assert real[0] < real[-1] - 5 and far[0] < 0.5 * far[-1]


def test_repeats_come_closer_to_the_data():
    def distance(repeats):
        out = edit(gaussian(LINEAR), LINEAR, points(-2.0, 200), 250, LINEAR.trailing(100),
                   repeats=repeats, generator=seeded())
        return float((out.mean() - MU).abs())
    assert distance(1) > 1.5 * distance(2) > 2 * distance(3)


def test_the_paper_half_is_818_on_the_cosine_schedule():
    cosine = Schedule.cosine()
    assert (cosine.abar - LINEAR.abar[500]).abs().argmin() == 818
    assert round(LINEAR.level(500), 2) == 0.08


# ---- the trusted library

@pytest.fixture(scope="module")
def tiny_unet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1,
                           norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
                           up_block_types=("UpBlock2D",) * 2).double().eval()


@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_the_loop_of_diffusers(tiny_unet, guide, mask, masked):
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(20)
    times = scheduler.timesteps[8:]  # img2img at strength 0.6
    z = torch.randn(guide.shape, generator=seeded(), dtype=torch.float64)
    x = scheduler.add_noise(guide, z, times[:1])
    with torch.no_grad():
        for i, k in enumerate(times):
            x = scheduler.step(tiny_unet(x, k).sample, k, x).prev_sample
            if masked:  # as in the inpainting pipeline: 1 = edit, at the level just reached
                proper = guide
                if i + 1 < len(times):
                    proper = scheduler.add_noise(guide, z, times[i + 1:i + 2])
                x = torch.where(mask[:, None], x, proper)
    schedule = Schedule.from_diffusers(scheduler)
    ours = edit(from_diffusers(tiny_unet, schedule), schedule, guide, int(times[0]) + 1,
                schedule.leading(20), mask=mask if masked else None, eta=0.0, generator=seeded())
    assert_close(ours, x, atol=1e-6, rtol=0)


# ---- identities

@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_t0_zero_returns_the_guide_bit_for_bit(guide, mask, eta):
    spy = Spy()
    out = edit(spy, LINEAR, guide, 0, LINEAR.trailing(10), mask=mask, repeats=3, eta=eta)
    assert torch.equal(out, guide) and out is not guide and spy.seen == {}


@pytest.mark.parametrize("path", [LINEAR.trailing(20), LINEAR.leading(20, offset=1)], ids=[0, 1])
@pytest.mark.parametrize("repeats", [1, 2])
def test_kept_pixels_are_exact_and_the_others_change(guide, mask, path, repeats, generator):
    out = edit(Spy(), LINEAR, guide.float(), 600, path, mask=mask, repeats=repeats,
               generator=generator)
    assert torch.equal(kept(out, mask), kept(guide.float(), mask))
    assert ((out - guide).movedim(1, 3)[mask].abs() > 1e-3).float().mean() > 0.95


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_model_sees_kept_pixels_at_the_level_of_the_others_with_one_noise(guide, mask, eta):
    spy = Spy()
    edit(spy, LINEAR, guide, 700, LINEAR.trailing(20), mask=mask, eta=eta, generator=seeded())
    z = torch.randn(guide.shape, generator=seeded(), dtype=torch.float64)
    for t, x in spy.seen.items():
        assert_close(kept(x, mask), kept(LINEAR.noise(guide, z, t), mask), atol=1e-14, rtol=0)
    assert len(spy.seen) == 14


def test_a_mask_of_all_changes_nothing_and_one_of_none_keeps_all(guide):
    def run(mask):
        return edit(Spy(), LINEAR, guide, 500, LINEAR.trailing(10), mask=mask, generator=seeded())
    everywhere = torch.ones(2, 8, 8, dtype=torch.bool)
    assert torch.equal(run(everywhere), run(None))
    assert torch.equal(run(~everywhere), guide)


def test_the_kept_side_is_the_side_of_zeros(guide, mask):
    def run(mask):
        return edit(Spy(), LINEAR, guide, 500, LINEAR.trailing(10), mask=mask, generator=seeded())
    assert torch.equal(kept(run(~mask), ~mask), kept(guide, ~mask))
    assert not torch.equal(kept(run(~mask), mask), kept(guide, mask))


def test_two_repeats_are_the_edit_of_the_edit(guide, mask):
    args, g = (500, LINEAR.trailing(10)), seeded()
    once = edit(Spy(), LINEAR, guide, *args, mask=mask, generator=g)
    twice = edit(Spy(), LINEAR, once, *args, mask=mask, generator=g)
    both = edit(Spy(), LINEAR, guide, *args, mask=mask, repeats=2, generator=seeded())
    assert torch.equal(both, twice) and not torch.equal(once, twice)


@pytest.mark.parametrize("t0, times", [
    (470, [470, 400, 300, 200, 100]), (400, [400, 300, 200, 100]),
    (1000, list(range(1000, 0, -100))), (7, [7])])
def test_the_path_is_entered_at_t0(guide, t0, times):
    spy = Spy()
    edit(spy, LINEAR, guide, t0, LINEAR.trailing(10))
    assert list(spy.seen) == times


def test_no_graph_is_kept_and_the_guide_is_left_alone(guide):
    layer = nn.Conv2d(3, 3, 1).double()
    before = guide.clone()
    out = edit(lambda x, t: layer(x), LINEAR, guide, 500, LINEAR.trailing(5))
    assert not out.requires_grad and torch.equal(guide, before)


# ---- refusals

def without_finite(x):
    x = x.clone()
    x[0, 0, 0, 0] = math.nan
    return x


@pytest.mark.parametrize("change, words", [
    (lambda a: a | {"t0": -1}, "t0: -1 is neither 0 nor a whole number in 1..1000"),
    (lambda a: a | {"t0": 1001}, "t0: 1001 is neither 0 nor a whole number in 1..1000"),
    (lambda a: a | {"t0": 0.5}, "t0: 0.5 is neither 0 nor a whole number"),
    (lambda a: a | {"t0": 1, "path": LINEAR.leading(10, offset=1)}, "t0: 1 .* in 2..1000"),
    (lambda a: a | {"path": [900, 950, 0]}, "path: 900 -> 950 at position 0"),
    (lambda a: a | {"path": []}, "path: "),
    (lambda a: a | {"eta": 1.5}, r"eta: 1.5 is outside \[0, 1\]"),
    (lambda a: a | {"eta": math.nan, "t0": 0}, r"eta: nan is outside \[0, 1\]"),
    (lambda a: a | {"repeats": 0}, "repeats: 0 is not a whole number >= 1"),
    (lambda a: a | {"repeats": 1.5}, "repeats: 1.5 is not a whole number >= 1"),
    (lambda a: a | {"guide": without_finite(a["guide"])}, "guide: 1 of 384 values are NaN"),
    (lambda a: a | {"guide": a["guide"].byte()}, r"guide: torch.uint8 \(2, 3, 8, 8\), accepted"),
    (lambda a: a | {"guide": a["guide"][0]}, r"guide: .*\(3, 8, 8\), accepted .* \(b, c, h, w\)"),
    (lambda a: a | {"guide": "me.png"}, "guide: str, accepted is a floating tensor"),
    (lambda a: a | {"mask": a["mask"].float()}, r"mask: torch.float32 \(2, 8, 8\), accepted"),
    (lambda a: a | {"mask": a["mask"][:, None]}, r"mask: .* accepted is torch.bool \(2, 8, 8\)"),
    (lambda a: a | {"mask": a["mask"][:1]}, r"mask: torch.bool \(1, 8, 8\), accepted"),
])
def test_bad_arguments_are_named(guide, mask, change, words):
    spy = Spy()
    sound = {"guide": guide, "t0": 500, "path": LINEAR.trailing(10), "mask": mask}
    edit(spy, LINEAR, **sound)
    spy.seen.clear()
    with pytest.raises((TypeError, ValueError), match=f"^{words}") as refusal:
        edit(spy, LINEAR, **change(sound))
    assert "\n" not in str(refusal.value) and spy.seen == {}
