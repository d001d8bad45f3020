"""pix2pix-zero: no direction, no change; its gradient against differences; its maps elsewhere."""

import pytest
import torch
from injected import SOURCE, drawn, noise, refused, sd15, seam, source  # noqa: F401, fixtures too
from torch.testing import assert_close

from coursekit import pretrained
from coursekit.diffusion.regularise import regularised
from coursekit.diffusion.sample import State, invert
from coursekit.edits import pix2pix_zero as zero
from coursekit.nets import injection
from coursekit.nets.control import tapped
from coursekit.nets.latent import Text
from coursekit.nets.wordmaps import joined, watched

DOGS, CATS = ["a dog", "a photo of a dog"], ["a cat", "a photo of a cat", "cat"]


def layers(sd, z, t=500):
    return injection.PIX2PIX_ZERO.of(injection.traced(sd, z, t), z.shape[2])


def moved(sd, by):
    text = sd.text(SOURCE)
    return Text(text.tokens + by.tokens)


# ---- no direction

def test_without_a_direction_it_is_the_plain_sample(exact, generator):
    """At any weight of guidance, as it leads from the prompt to the prompt."""
    path = exact.path(2)
    states = drawn(exact, SOURCE, noise(exact, generator), path)
    by = zero.direction(exact, DOGS, CATS)
    out = zero.edit(exact, states, SOURCE, by, path, strength=0.0, lambda_xa=10.0)
    assert_close(out, states[-1].x, rtol=0, atol=1e-10)
    assert (zero.edit(exact, states, SOURCE, by, path) - out).abs().max() > 1e-3


def test_without_a_direction_the_loss_and_its_gradient_are_0(exact, generator):
    z = noise(exact, generator).requires_grad_()
    where, text = layers(exact, z), exact.text(SOURCE)
    with torch.no_grad():
        aim = zero.attention(exact, z, 500, text, where)
    loss = zero.drift(zero.attention(exact, z, 500, text, where), aim)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert loss.abs().max() < 1e-25 and gradient.abs().max() < 1e-13


def test_the_direction_is_a_difference_of_means(exact):
    by, back = zero.direction(exact, DOGS, CATS), zero.direction(exact, CATS, DOGS)
    cats = [exact.text(s) for s in CATS]
    dogs = [exact.text(s) for s in DOGS]
    for name in ("tokens", "pooled"):
        if getattr(cats[0], name) is None:
            assert getattr(by, name) is None
            continue
        a, b = (sum(getattr(t, name) for t in some) / len(some) for some in (dogs, cats))
        assert_close(getattr(by, name), b - a, rtol=0, atol=1e-10)
        assert_close(getattr(back, name), a - b, rtol=0, atol=1e-10)
    assert zero.direction(exact, DOGS, DOGS).tokens.abs().max() == 0


def test_a_direction_of_many_sentences_is_that_of_the_few_they_repeat(sd15):
    few, many = zero.direction(sd15, DOGS, CATS), zero.direction(sd15, DOGS * 20, CATS * 30)
    assert_close(many.tokens, few.tokens, rtol=0, atol=1e-12)


# ---- cross-attention guidance

@torch.no_grad()
def test_the_maps_are_those_that_are_watched_elsewhere(sd15, generator):
    z = noise(sd15, generator, b=2)
    where = layers(sd15, z)
    maps = zero.attention(sd15, z, 500, sd15.text(SOURCE), where)
    assert len(maps) == 16
    for m in maps:
        assert_close(m.sum(-1), torch.ones_like(m[..., 0]))
    eps, seen = watched(sd15, SOURCE, sizes=(4,))
    eps(z, 500)
    at4 = [m.mean(1) for m, site in zip(maps, where, strict=True) if site.size == (4, 8)]
    join = joined(sd15, SOURCE)[1].double()
    mean = (sum(at4) / len(at4) @ join).mT.unflatten(2, (4, 8))
    assert_close(mean.float(), seen.at(500, 4), rtol=0, atol=1e-6)


def test_drift_is_summed_over_pixels_and_tokens_and_averaged_over_heads():
    maps = [torch.full((2, 4, 3, 5), 0.5), torch.ones(2, 2, 6, 5)]
    aim = [torch.zeros(2, 4, 3, 5), torch.stack([torch.ones(2, 6, 5), torch.zeros(2, 6, 5)])]
    assert zero.drift(maps, aim).tolist() == [0.25 * 15, 0.25 * 15 + 30]


def test_the_gradient_is_that_of_differences(sd15, generator):
    z, d = noise(sd15, generator), noise(sd15, generator)
    where, by = layers(sd15, z), zero.direction(sd15, DOGS, CATS)
    with torch.no_grad():
        aim = zero.attention(sd15, z, 500, sd15.text(SOURCE), where)
    towards = moved(sd15, by)

    def loss(h):
        with torch.no_grad():
            return float(zero.drift(zero.attention(sd15, z + h * d, 500, towards, where), aim))

    slope = float((zero.gradient(sd15, z, 500, towards, where, aim) * d).sum())
    assert abs((loss(1e-4) - loss(-1e-4)) / 2e-4 / slope - 1) < 1e-4


def test_guidance_brings_the_maps_back_to_the_source(sd15, source):
    """After an edit's first hop, latents of longer steps attend more as the source does."""
    path, states = source
    by, z, t = zero.direction(sd15, DOGS, CATS), states[0].x, path[0]
    where, towards = layers(sd15, z), moved(sd15, by)
    with torch.no_grad():
        aim = zero.attention(sd15, z, t, sd15.text(SOURCE), where)
        gradient = zero.gradient(sd15, z, t, towards, where, aim)
        length = 0.05 / float(gradient.abs().max())
        drifts = [float(zero.drift(zero.attention(sd15, z - k * length * gradient, t, towards,
                                                  where), aim)) for k in (0, 0.5, 1)]
    assert drifts[0] > drifts[1] > drifts[2] > 0
    free, held = (zero.edit(sd15, states, SOURCE, by, path, lambda_xa=k) for k in (0.0, length))
    assert (free - held).abs().max() > 1e-4


def test_gradients_in_float32_are_those_of_float64_and_half_is_refused(
        models, doubles, folders, generator):
    sd, exact = models["sd15"], doubles["sd15"]
    z = noise(exact, generator)
    where, by = layers(exact, z), zero.direction(exact, DOGS, CATS)
    found = []
    for model, like in ((exact, z), (sd, z.float())):
        text, towards = model.text(SOURCE), moved(model, Text(by.tokens.to(like)))
        with torch.no_grad():
            aim = zero.attention(model, like, 500, text, where)
        found.append(zero.gradient(model, like, 500, towards, where, aim))
    assert found[1].dtype == torch.float32
    assert (found[1] - found[0]).norm() < 1e-2 * found[0].norm()
    half = pretrained.load_latent(folders["sd15"], dtype=torch.bfloat16)
    path = half.path(1)
    states = drawn(half, SOURCE, z.float(), path)
    with pytest.raises(ValueError, match="^sd has a U-Net in torch.bfloat16: accepted is torch.fl"):
        zero.edit(half, states, SOURCE, by, path)
    assert zero.edit(half, states, SOURCE, by, path, lambda_xa=0).dtype == torch.float32


def test_pictures_of_a_batch_do_not_touch_each_other(sd15, generator):
    path = sd15.path(1)
    states = drawn(sd15, SOURCE, noise(sd15, generator, b=2), path)
    by = zero.direction(sd15, DOGS, CATS)
    both = zero.edit(sd15, states, [SOURCE, "a photo"], by, path, lambda_xa=5.0)
    for i, prompt in enumerate((SOURCE, "a photo")):
        one = [State(s.t, s.x[i:i + 1]) for s in states]
        assert_close(zero.edit(sd15, one, prompt, by, path, lambda_xa=5.0), both[i:i + 1],
                     rtol=0, atol=1e-10)


def test_regularised_inversion_is_a_source_too(sd15, source, generator):
    path, states = source
    eps = regularised(sd15.eps(SOURCE), generator=generator)
    with torch.no_grad():
        better = list(invert(eps, sd15.schedule, states[-1].x, path))
    by = zero.direction(sd15, DOGS, CATS)
    out, other = (zero.edit(sd15, image, SOURCE, by, path) for image in (better, states[-1].x))
    assert (out - other).abs().max() > 1e-4 and out.shape == other.shape


# ---- the network after, and refusals

def test_no_graph_is_kept_and_all_is_restored_after_an_exception(sd15, source):
    path, states = source
    before, by, passes = seam(sd15.unet), zero.direction(sd15, DOGS, CATS), []

    def fail(_):
        passes.append(torch.is_grad_enabled())
        if len(passes) == 3:  # to trace, the source, the edit with its gradient
            raise RuntimeError("in the middle")

    with tapped(sd15.unet.up_blocks[3], fail):
        with pytest.raises(RuntimeError, match="in the middle"):
            zero.edit(sd15, states, SOURCE, by, path)
    assert seam(sd15.unet) == before and passes == [False, False, True]
    assert torch.is_grad_enabled()
    assert not zero.edit(sd15, states, SOURCE, by, path).requires_grad
    assert all(p.grad is None for p in sd15.unet.parameters())


@pytest.mark.parametrize("wrong, words", [
    ({"lambda_xa": -0.1}, "lambda_xa=-0.1: accepted is a finite number >= 0"),
    ({"strength": float("nan")}, "strength=nan: accepted is a finite number"),
    ({"direction": "cat"}, "direction is str: accepted is a Text as from direction(sd, ..), (1, "),
    ({"direction": Text(torch.zeros(1, 24, 3))}, "direction is (1, 24, 3): accepted is a Text"),
    ({"direction": Text(torch.zeros(2, 24, 16))}, "direction is (2, 24, 16): accepted is a Text"),
    ({"prompt": 3}, "prompt=3: accepted are a sentence"),
    ({"negative": [1]}, "negative=[1]: accepted are a sentence"),
    ({"w": None}, "w=None: accepted is a finite number"),
    ({"image": 3}, "image is int: accepted are latents"),
])
def test_a_wrong_argument_is_named(sd15, source, wrong, words):
    path, states = source
    given = {"image": states, "prompt": SOURCE, "path": path,
             "direction": Text(torch.zeros(1, 24, 16))} | wrong
    refused(zero.edit, words, sd=sd15, **given)


@pytest.mark.parametrize("sources, targets, words", [
    ("a dog", CATS, "sources='a dog': accepted is a list of sentences"),
    (DOGS, [], "targets=[]: accepted is a list of sentences"),
    (DOGS, ["a", 3], "targets=['a', 3]: accepted is a list"),
])
def test_sentences_are_refused_by_name(sd15, sources, targets, words):
    with pytest.raises(TypeError) as refusal:
        zero.direction(sd15, sources, targets)
    assert str(refusal.value).startswith(words)
