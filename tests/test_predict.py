"""Predictions and wrappers: round trips, diffusers' conventions, guidance on a known law."""

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from test_schedule import EXACT, NAMED, pair, peer
from torch.testing import assert_close
from toys import TRIANGLE

from coursekit.diffusion import predict
from coursekit.diffusion.predict import PREDICTIONS, from_eps, target, to_eps
from coursekit.diffusion.schedule import Schedule

LINEAR = Schedule.linear()
TIMES = [1, 20, 500, 1000, torch.tensor([1, 20, 500, 1000])]
THEIR_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("schedule", NAMED[:2])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_round_trips(prediction: str, schedule: Schedule, t: int | torch.Tensor) -> None:
    x0, eps = pair()
    x = schedule.noise(x0, eps, t)
    out = target(schedule, prediction, x0, eps, t)
    assert_close(from_eps(schedule, prediction, eps, x, t), out, **EXACT)
    assert_close(to_eps(schedule, prediction, out, x, t), eps, **EXACT)
    assert_close(schedule.denoise(x, to_eps(schedule, prediction, out, x, t), t), x0, **EXACT)


def test_target_is_diffusers_velocity() -> None:
    x0, eps = pair()
    t = TIMES[-1]
    theirs = peer(LINEAR).get_velocity(x0, eps, t - 1)
    assert_close(target(LINEAR, "v", x0, eps, t), theirs, **EXACT)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_outputs_mean_what_diffusers_reads_in_them(prediction: str) -> None:
    """x_0 as DDIMScheduler.step finds it from a raw output of each kind."""
    x, out = pair()
    for t in (1, 300, 1000):
        scheduler = peer(LINEAR, prediction_type=THEIR_NAMES[prediction])
        scheduler.set_timesteps(1000)
        theirs = scheduler.step(out, t - 1, x).pred_original_sample
        ours = LINEAR.denoise(x, to_eps(LINEAR, prediction, out, x, t), t)
        assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_v_stays_accurate_in_float32_where_abar_vanishes() -> None:
    cosine, (x0, eps) = NAMED[2], pair(dtype=torch.float32)
    x, v = cosine.noise(x0, eps, 1000), target(cosine, "v", x0, eps, 1000)
    assert_close(to_eps(cosine, "v", v, x, 1000), eps, atol=1e-6, rtol=0)
    assert_close(v, -x0, atol=1e-3, rtol=0)  # the limit abar -> 0


def test_our_networks_get_our_times_and_their_conditions() -> None:
    seen = []

    def net(x: torch.Tensor, t: torch.Tensor, context: float) -> torch.Tensor:
        seen.append((t.tolist(), t.dtype))
        return (context * x).bfloat16()

    x, _ = pair(dtype=torch.float32)
    out = predict.from_network(net, LINEAR, "eps", context=2.0)(x, 1000)
    assert seen == [([1000] * 4, torch.int64)]
    assert_close(out, (2 * x).bfloat16().float(), atol=0, rtol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_diffusers_networks_count_from_zero(prediction: str) -> None:
    unet = UNet2DModel(
        8, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    x, _ = pair(dtype=torch.float32)
    eps = predict.from_diffusers(unet.requires_grad_(False), LINEAR, prediction)
    scheduler = DDIMScheduler(prediction_type=THEIR_NAMES[prediction], clip_sample=False)
    scheduler.set_timesteps(1000)
    for t in (1, 700):
        theirs = scheduler.step(unet(x, t - 1).sample, t - 1, x).pred_original_sample
        assert_close(LINEAR.denoise(x, eps(x, t), t), theirs, atol=2e-4, rtol=1e-4)
        assert (eps(x, t) - eps(x, t + 1)).abs().max() > 1e-6  # the network does hear the time
    with pytest.raises(ValueError, match="x: 4 channels, the network takes 3"):
        eps(torch.zeros(1, 4, 8, 8), 1)


def constant(value: float) -> predict.Eps:
    return lambda x, t: torch.full_like(x, value * t)


def test_guidance_is_linear_in_w_and_one_pass_at_one() -> None:
    uncond, cond = TRIANGLE.eps(LINEAR), constant(0.01)
    assert predict.guided(uncond, cond, 1.0) is cond
    x = torch.randn(5, 2, dtype=torch.float64)
    at = {w: predict.guided(uncond, cond, w)(x, 400) for w in (0.0, 2.0, 7.5)}
    assert_close(at[0.0], uncond(x, 400), **EXACT)
    assert_close(6.5 * (at[2.0] - cond(x, 400)), at[7.5] - cond(x, 400), **EXACT)
    blend = predict.mixed([uncond, cond], [1 - 7.5, 7.5])
    assert_close(blend(x, 400), at[7.5], **EXACT)


def test_mixed_takes_masks() -> None:
    x = torch.zeros(1, 1, 2, 2)
    left = torch.tensor([1.0, 0.0])
    out = predict.mixed([constant(1), constant(2)], [left, 1 - left])(x, 10)
    assert out.tolist() == [[[[10.0, 20.0], [10.0, 20.0]]]]


@pytest.mark.parametrize("t", [1, 300, 1000])
def test_classifier_guidance_turns_a_mixture_into_its_component(t: int) -> None:
    """Bayes: grad log p(x | y) = grad log p(x) + grad log p(y | x); autograd knows the latter."""
    y, level = 1, LINEAR.level(t)

    def residual(x: torch.Tensor, t: int) -> torch.Tensor:
        x = x.detach().requires_grad_()
        log_y = TRIANGLE.log_parts(x, level).log_softmax(1)[:, y].sum()
        return -((1 - level) ** 0.5) * torch.autograd.grad(log_y, x)[0]

    x = torch.randn(6, 2, dtype=torch.float64)
    alone = type(TRIANGLE)([TRIANGLE.means[y].tolist()], TRIANGLE.std).eps(LINEAR)
    guided = predict.shifted(TRIANGLE.eps(LINEAR), residual)
    assert_close(guided(x, t), alone(x, t), atol=1e-10, rtol=1e-10)


X = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: predict.from_network(None, LINEAR, "epsilon"), "'epsilon' is not one of eps, x0"),
        (lambda: predict.from_diffusers(None, LINEAR, "w"), "prediction: 'w' is not one of"),
        (lambda: target(LINEAR, "noise", X, X, 1), "prediction: 'noise'"),
        (lambda: to_eps(LINEAR, "x0", X, X, 0), r"t: 0 is outside 1\.\.1000"),
        (lambda: to_eps(LINEAR, "v", X, X, torch.tensor([1, 0])), r"t: 0 is outside 1\.\.1000"),
        (lambda: to_eps(LINEAR, "x0", X, X, 1001), r"t: 1001 is outside 0\.\.1000"),
        (lambda: predict.from_network(None, LINEAR)(X, 0), r"t: 0 is outside 1\.\.1000"),
        (lambda: predict.from_network(None, LINEAR)(X, 1001), r"t: 1001 is outside 1\.\.1000"),
        (lambda: predict.mixed([constant(1)], [0.5, 0.5]), "weights: 2 for 1 predictors"),
        (lambda: predict.mixed([], []), "weights: 0 for 0 predictors"),
    ],
)
def test_bad_input_is_named_in_one_line(call, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
