"""The benches of ControlNet and LoRA: what changes nothing gains nothing, and intervals are right.
"""

import math

import pytest
import torch
from scipy import stats

from coursekit import portraits, pretrained
from coursekit.bench import _edits, controlnet, lora, text_to_image
from coursekit.classroom import metrics
from coursekit.nets.lora import Lora
from coursekit.recipes import portraits_controlnet


@pytest.fixture(scope="module")
def sd():
    return pretrained.load_latent("portraits-sd")


@pytest.fixture(autouse=True)
def two_steps(monkeypatch):
    for bench in (controlnet, lora, text_to_image):
        monkeypatch.setattr(bench, "STEPS", 2)
    monkeypatch.setattr(controlnet, "RUNS", 1)


def the(rows: list, *words: str):
    found = [row for row in rows if all(word in row.name for word in words)]
    assert len(found) == 1, [row.name for row in rows]
    return found[0]


@pytest.fixture(scope="module")
def judge():
    return pretrained.load("judge").net


def test_a_fresh_controlnet_gains_nothing(sd, monkeypatch):
    # bf16 plus zeros in float32 rounds in other places
    monkeypatch.setattr(text_to_image, "quick", lambda eps, device: eps)
    net = portraits_controlnet.copied(sd.unet, False).eval().requires_grad_(False)
    rows = list(controlnet.gates(sd, net, 0, "cpu", n=4))
    for what in ("IoU", "outlines"):
        alone = the(rows, "the model alone:", what).ours
        assert {the(rows, f"strength {s}:", what).ours for s in ("0.5", "1", "1.5")} == {alone}
    assert the(rows, "strength 1: IoU").peer == 0.85
    assert the(rows, "FID_w").ratio == the(rows, "named attributes").ratio == 1
    assert the(rows, "the renders themselves: IoU").ours > 0.97
    assert the(rows, "largest difference").ours < 1e-4
    assert the(rows, "one image's latents").peer > 0


def test_one_that_acts_is_drawn_with_its_hints(sd):
    net = portraits_controlnet.copied(sd.unet, True).eval().requires_grad_(False)
    hints = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    drawn = [text_to_image.draw(sd, ["a photo of a cat"] * 4, 3.0, 0, "cpu",
                                controlnet.held(sd, net, h))
             for h in (hints, hints[[1, 0, 2, 3]])]
    apart = (drawn[0] - drawn[1]).abs().amax((1, 2, 3))
    assert apart[:2].min() > 0.01 > 1e-4 > apart[2:].max()


def test_agreement_is_the_mean_with_its_interval():
    wanted = portraits.silhouette(portraits.sample(6, torch.Generator().manual_seed(0)))
    iou, outline = controlnet.agreement("some", wanted.roll(1, 0), wanted, 0.85)
    found = metrics.iou(wanted.roll(1, 0), wanted)
    low, high = stats.norm.interval(0.95, found.mean(), found.std() / 6**0.5)
    assert iou.name == f"some: IoU (+- {(high - low) / 2:.3f}); peer: bar" and iou.peer == 0.85
    assert iou.ours == pytest.approx(found.mean().item()) and outline.peer is None
    same = [row.ours for row in controlnet.agreement("same", wanted, wanted)]
    assert same == [1, 1]


@pytest.mark.slow
def test_the_bench_of_a_lora_runs_on_the_shipped_model(sd):
    rows = list(lora.gates(sd, 0, "cpu", n=2, noises=2, steps=2, batch=2, rank=2))
    assert the(rows, "fit to one portrait").peer == 45 and len(rows) == 1 + 2 * 5
    for scale in ("0.5", "1"):
        row = the(rows, f"scale {scale},", "there and back")
        assert row.unit == "dB" and f"; {row.ours - row.peer:+.2f} (" in row.name
        assert abs(row.ours - row.peer) < 3  # two updates of a rank of two


def test_an_update_of_nothing_is_the_model_alone(sd, judge):
    some = lora.task(["background"], 2, 7, "cpu")
    fresh = [Lora.fresh(sd.unet, 2, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    alone, same = (lora.columns(sd, judge, some, loras, 1.0, 0, 2)
                   for loras in ([None, None], fresh))
    assert alone.keys() == same.keys() and len(alone) == 5
    for name, values in alone.items():
        assert torch.equal(values, same[name]) and values.isfinite().all()


def test_the_interval_is_students():
    d = torch.tensor([0.3, -0.1, 0.4, 0.2])
    mean, low, high = _edits.interval(d)
    wanted = stats.ttest_1samp(d.numpy(), 0).confidence_interval(0.95)
    assert mean == pytest.approx(0.2) and math.isclose(low, wanted.low, rel_tol=1e-5)
    assert math.isclose(high, wanted.high, rel_tol=1e-5)
