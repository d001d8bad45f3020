"""Layers, states and windows: the official choices by name, and a trace that knows the order."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from injected import noise

from coursekit.diffusion.sample import State, invert
from coursekit.nets import injection
from coursekit.nets.injection import MASACTRL, PIX2PIX_ZERO, PNP, Layers


def own(sd):
    """A model with the levels of the course's own: latents of 16, maps of 16, 8, and 4."""
    net = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=2, cross_attention_dim=sd.unet.config.cross_attention_dim,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))
    return replace(sd, unet=net.eval().requires_grad_(False))


def transformers(sites):
    return list(dict.fromkeys(s.name.partition(".transformer_blocks.")[0] for s in sites))


def blocks(*pairs):
    return [f"up_blocks.{i}.attentions.{j}" for i, j in pairs]


CHOICES = {  # kind -> PnP's feature, its attention, MasaCtrl's, height of word maps
    "sd15": ("up_blocks.1", blocks((1, 1), (1, 2), *((i, j) for i in (2, 3) for j in range(3))),
             blocks(*((i, j) for i in (2, 3) for j in range(3))), 8),
    "sdxl": ("up_blocks.0", blocks((0, 1), (0, 2), *((1, j) for j in range(3))),
             blocks(*((1, j) for j in range(3))), 8),
    "own": ("up_blocks.1", blocks((1, 1), (2, 0), (2, 1)),
            blocks((1, 0), (1, 1), (2, 0), (2, 1)), 8),
}
CHOICES["sd21"] = CHOICES["sd15"]


@pytest.fixture(scope="module")
def traces(models):
    """Each kind of model, and its sites at latents of 16x24."""
    known = models | {"own": own(models["sd15"])}
    z = torch.zeros(1, 4, 16, 24)
    return {name: (sd, injection.traced(sd, z, 500)) for name, sd in known.items()}


@pytest.mark.parametrize("kind", CHOICES)
def test_the_choices_are_the_official_ones(traces, kind):
    sd, sites = traces[kind]
    block, pnp, masactrl, height = CHOICES[kind]
    assert injection.feature(sd, sites) is sd.unet.get_submodule(f"{block}.resnets.1.conv2")
    assert transformers(PNP.of(sites, 16)) == pnp
    assert transformers(MASACTRL.of(sites, 16)) == masactrl
    assert PIX2PIX_ZERO.of(sites, 16) == tuple(s for s in sites if s.is_cross)
    assert injection.map_height(sites, 16) == height
    for layers in (PNP, MASACTRL):
        assert not any(s.is_cross for s in layers.of(sites, 16))


@pytest.mark.parametrize("kind, first", [("sd15", 10), ("sd21", 10), ("sdxl", 64)])
def test_masactrl_begins_where_the_paper_counts_to_and_a_dictionary_does_not(traces, kind, first):
    """Layer 10 of 16, 64 of 70 in order of execution; registered, the middle is last."""
    sd, sites = traces[kind]
    chosen = [s.name for s in MASACTRL.of(sites, 16)]
    asked = [s.name for s in sites if not s.is_cross]
    assert asked[first:] == chosen
    registered = [n.removesuffix(".processor") for n in sd.unet.attn_processors if ".attn1." in n]
    assert set(registered) == set(asked) and registered[first:] != chosen
    assert any(n.startswith("mid_block") for n in registered[first:])


def test_the_same_choice_at_another_size(traces):
    """By shares of the height: an odd one, and latents of real size."""
    sd, _ = traces["own"]
    for h, w in ((15, 9), (64, 64)):
        sites = injection.traced(sd, torch.zeros(1, 4, h, w), 500)
        assert transformers(MASACTRL.of(sites, h)) == CHOICES["own"][2]
        assert injection.map_height(sites, h) == (h + 1) // 2


@pytest.mark.parametrize("kind, h, height", [("sd15", 64, 16), ("sd21", 64, 16), ("sdxl", 128, 32)])
def test_maps_of_words_at_the_real_size_are_the_official_ones(traces, kind, h, height):
    sites = [replace(s, size=(s.size[0] * h // 16, s.size[1] * h // 16))
             for s in traces[kind][1]]
    assert injection.map_height(sites, h) == height


def test_a_network_without_such_a_layer_is_named(traces):
    sites = [s for s in traces["sd15"][1] if s.place != "up"]
    for layers, words in ((PNP, "sd: its U-Net has no self-attention in up of height 0 or more, "
                                "after the first 1"),
                          (Layers(("up",), True, 0.5), "no attention to words in up of height 8")):
        with pytest.raises(ValueError) as refusal:
            layers.of(sites, 16)
        assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("share, S, hops", [
    (0, 50, 0), (1, 50, 50), (0.8, 50, 40), (0.5, 50, 25), (0.08, 50, 4), (0.58, 50, 29),
    (0.3, 10, 3), (0.7, 10, 7), (0.99, 2, 1), (1, 1, 1)])
def test_a_window_is_a_share_whatever_the_number_of_hops(share, S, hops):
    assert injection.window("tau", share, S) == hops


@pytest.mark.parametrize("share", [-0.1, 1.001, float("nan"), "half", None])
def test_a_share_outside_is_refused(share):
    with pytest.raises(ValueError, match=r"^tau=.*accepted is a share of the path in \[0, 1\]$"):
        injection.window("tau", share, 10)


# ---- the source

@pytest.fixture
def given(doubles, generator):
    sd = doubles["sd15"]
    path = sd.path(2)
    z = noise(sd, generator, 2, 16, 24)
    return sd, path, [State(t, z * (t + 1)) for t in (*path, 700)]


def test_states_are_found_by_their_time_in_any_order(given):
    sd, path, states = given
    for order in (states, states[::-1]):
        found, source = injection.states(sd, order, path, 7.5, {"prompt": "a dog"})
        assert found == path and list(source) == path[:-1]
        for t in source:
            assert source[t] is next(s.x for s in states if s.t == t)


@torch.no_grad()
def test_a_picture_is_inverted_with_its_prompt(given):
    sd, path, states = given
    z = states[2].x
    _, source = injection.states(sd, z, path, 7.5, {"prompt": "a dog", "target": "a photo"})
    for prompt, same in (("a dog", True), ("a photo", False)):
        inverted = {s.t: s.x for s in invert(sd.eps(prompt), sd.schedule, z, path)}
        assert all(torch.equal(source[t], inverted[t]) == same for t in path[:-1])


def changed(at, f):
    return lambda s: [State(x.t, f(x.x)) if i == at else x for i, x in enumerate(s)]


@pytest.mark.parametrize("image, words", [
    (lambda s: s[1:], "image has no state at t=502: accepted are states at every time of the path"),
    (lambda s: [], "image has no state at t=502"),
    (lambda s: 3, "image is int: accepted are latents (b, c, h, w), or a list of their states"),
    (lambda s: [x.x for x in s], "image is list: accepted are latents"),
    (lambda s: s[0].x[0], "image is torch.float64 (4, 16, 24): accepted are floating latents"),
    (lambda s: s[0].x.long(), "image is torch.int64"),
    (lambda s: s[0].x.to("meta"), "image is on meta, the model on cpu: accepted is one device"),
    (lambda s: s[0].x / 0, "image: "),
    (changed(1, torch.Tensor.float), "image at t=2 is torch.float32 (2, 4, 16, 24) on cpu: "
                                     "accepted is what its first state is, torch.float64"),
    (changed(1, lambda x: x[..., :8]), "image at t=2 is torch.float64 (2, 4, 16, 8)"),
    (changed(1, lambda x: x.to("meta")), "image at t=2 is torch.float64 (2, 4, 16, 24) on meta"),
    (changed(0, lambda x: x * torch.nan), "image at t=502: 3072 of 3072 values are NaN"),
    (changed(0, lambda x: None), "image at t=502 is NoneType"),
])
def test_a_source_that_does_not_fit_is_named(given, image, words):
    sd, path, states = given
    with pytest.raises((TypeError, ValueError)) as refusal:
        injection.states(sd, image(states), path, 1.0, {"prompt": "a dog"})
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("w, prompts, words", [
    (float("nan"), {}, "w=nan: accepted is a finite number"),
    ("7", {}, "w='7': accepted is a finite number"),
    (1.0, {"target": 3}, "target=3: accepted are a sentence"),
    (1.0, {"target": ["a", 3]}, "target=['a', 3]: accepted are a sentence"),
    (1.0, {"negative": ["a"] * 3}, "negative: 3 sentences for 2 pictures, accepted are 1 and 2"),
    (1.0, {"target": []}, "target: 0 sentences for 2 pictures"),
])
def test_weights_and_prompts_are_refused_by_name(given, w, prompts, words):
    sd, path, states = given
    with pytest.raises((TypeError, ValueError)) as refusal:
        injection.states(sd, states, path, w, {"prompt": "a dog"} | prompts)
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)


def test_rows_are_repeated_for_both_halves_of_guidance():
    kept = torch.arange(6.0).view(2, 3)
    assert torch.equal(injection.repeated(kept, torch.zeros(2, 3)), kept)
    assert torch.equal(injection.repeated(kept, torch.zeros(4, 3)), torch.cat([kept, kept]))
