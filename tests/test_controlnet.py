"""ControlNet: equal to diffusers' pipelines, nothing at strength 0, and what it must refuse."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import tiny_sd
import torch
from diffusers import (
    ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from injected import refused, seam
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from coursekit import portraits
from coursekit.diffusion.predict import from_network
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.edits import controlnet, p2p, sdedit
from coursekit.edits.controlnet import Control, as_hint, edit, load, residuals, under
from coursekit.nets import checkpoint, tiny
from coursekit.nets.blend import Blend
from coursekit.nets.control import controlled, tapped
from coursekit.nets.hinted import Controlled, zero_conv
from coursekit.nets.latent import Latent
from coursekit.nets.unet import UNet

CAT, DOG = "a photo of a cat", "a dog"
ENCODER = ("conv_in", "time_embedding", "down_blocks", "mid_block")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(sd: Latent, widths=(4,) * 4) -> ControlNetModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ControlNetModel.from_unet(sd.unet, conditioning_embedding_out_channels=widths)
    return net.requires_grad_(False)


@torch.no_grad()
def trained(sd: Latent, seed: int = 1, widths=(4,) * 4) -> ControlNetModel:
    """As training would leave it: no convolution is zero."""
    net, generator = fresh(sd, widths), seeded(seed)
    for p in net.parameters():
        p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return net


@cache
def small() -> dict:
    """A tiny model, a ControlNet of it that acts, and a hint for pictures of 16x16."""
    sd = tiny.latent()
    return {"sd": sd, "net": trained(sd, widths=(4, 8)),
            "hint": torch.rand(1, 3, 16, 16, generator=seeded(2))}


def held(path=None, **more) -> Latent:
    return under(small()["sd"], Control(**{k: small()[k] for k in ("net", "hint")} | more), path)


def noise(b: int = 2, seed: int = 5) -> torch.Tensor:
    return small()["sd"].noise(b, seeded(seed))


@torch.no_grad()
def draw(sd: Latent, z: torch.Tensor, steps: int, *args, **more) -> torch.Tensor:
    return last(ddim(sd.eps(*args, **more), sd.schedule, z, sd.path(steps))).x


# ---- beside diffusers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets(folders, models) -> dict:
    """By topology: two ControlNets, and a function that draws with the pipeline of some."""
    found = {}
    for name, folder in folders.items():
        nets = [trained(models[name], seed) for seed in (1, 2)]
        kind = StableDiffusionXLControlNetPipeline if name == "sdxl" else (
            StableDiffusionControlNetPipeline)

        def draw_(used, *args, _kind=kind, _folder=folder, **more):
            pipe = _kind.from_pretrained(_folder, controlnet=used)
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
            pipe.set_progress_bar_config(disable=True)
            return pipe(*args, output_type="latent", **more).images

        found[name] = SimpleNamespace(nets=nets, draw=draw_)
    return found


CASES = [
    ({}, {}, [CAT, DOG], 4.0),
    ({"strength": 0.6}, {"controlnet_conditioning_scale": 0.6}, [CAT, DOG], 1.0),
    ({"negative_hint": False, "fade": True}, {"guess_mode": True}, [CAT, DOG], 3.0),
    ({"negative_hint": False, "fade": True}, {"guess_mode": True}, "", 3.0),
    ({"fade": True}, {"guess_mode": True}, CAT, 1.0),
    ({"window": (0.25, 0.75), "strength": 2.0},
     {"control_guidance_start": 0.25, "control_guidance_end": 0.75,
      "controlnet_conditioning_scale": 2.0}, CAT, 4.0),
]


@pytest.mark.parametrize("ours, theirs, prompt, w", CASES, ids=range(len(CASES)))
def test_a_few_steps_are_the_pipelines(sets, models, ours, theirs, prompt, w):
    sd, one = models["sd15"], sets["sd15"]
    n = 1 if isinstance(prompt, str) else 2
    z, hint = sd.noise(n, seeded(), (64, 96)), torch.rand(n, 3, 64, 96, generator=seeded(3))
    wanted = one.draw(one.nets[0], prompt, image=hint, latents=z, guidance_scale=w,
                      num_inference_steps=4, **theirs)
    mine = under(sd, Control(one.nets[0], hint, **ours), sd.path(4))
    found = draw(mine, z, 4, prompt, w=w)
    assert_close(found, wanted, rtol=0, atol=1e-4)
    plain = sd if prompt or w == 1 else replace(sd, beside=lambda *_: {})
    assert (found - draw(plain, z, 4, prompt, w=w)).abs().max() > 1e-2  # it was there


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
def test_they_are_on_the_other_topologies(sets, models, name):
    sd, one = models[name], sets[name]
    z, hint = sd.noise(1, seeded(), (64, 64)), torch.rand(1, 3, 64, 64, generator=seeded(3))
    for ours, theirs in (({}, {}), ({"negative_hint": False, "fade": True}, {"guess_mode": True})):
        wanted = one.draw(one.nets[0], CAT, image=hint, latents=z, guidance_scale=3.0,
                          num_inference_steps=2, **theirs)
        found = draw(under(sd, Control(one.nets[0], hint, **ours)), z, 2, CAT, w=3.0)
        assert_close(found, wanted, rtol=0, atol=1e-4)


def test_several_add_up_as_in_the_pipeline(sets, models):
    sd, one = models["sd15"], sets["sd15"]
    z = sd.noise(1, seeded(), (64, 64))
    hints = [torch.rand(1, 3, 64, 64, generator=seeded(k)) for k in (3, 4)]
    wanted = one.draw(one.nets, CAT, image=hints, latents=z, guidance_scale=3.0,
                      num_inference_steps=4, controlnet_conditioning_scale=[0.5, 1.5],
                      control_guidance_end=[1.0, 0.5])
    controls = [Control(one.nets[0], hints[0], 0.5),
                Control(one.nets[1], hints[1], 1.5, (0.0, 0.5))]
    both = draw(under(sd, controls, sd.path(4)), z, 4, CAT, w=3.0)
    assert_close(both, wanted, rtol=0, atol=1e-4)
    assert (both - draw(under(sd, controls[:1]), z, 4, CAT, w=3.0)).abs().max() > 1e-3


# ---- nothing --------------------------------------------------------------------------------


@torch.no_grad()
def test_a_fresh_one_changes_nothing_at_all(sd):
    net, x = fresh(sd), sd.noise(2, seeded(), (64, 64))
    hint = torch.rand(1, 3, 64, 64, generator=seeded(3))
    mine = under(sd, Control(net, hint))
    for w in (1.0, 5.0):
        assert torch.equal(mine.eps(CAT, w=w)(x, 500), sd.eps(CAT, w=w)(x, 500))
    for part in ENCODER:
        base, copy = (getattr(m, part).state_dict() for m in (sd.unet, net))
        assert_close(copy, base, rtol=0, atol=0)


@torch.no_grad()
def test_strength_zero_is_the_model_and_asks_nobody():
    sd, x, calls = small()["sd"], noise(), []
    with tapped(small()["net"], lambda _: calls.append(1)):
        for w in (1.0, 4.0):
            plain = sd.eps(DOG, w=w)(x, 500)
            assert torch.equal(held(strength=0.0).eps(DOG, w=w)(x, 500), plain)
            assert calls == []
            assert (held().eps(DOG, w=w)(x, 500) - plain).abs().max() > 1e-2
            calls.clear()


@torch.no_grad()
def test_outside_its_window_it_is_the_model_by_time_and_not_by_counting():
    sd, x, path = small()["sd"], noise(), small()["sd"].schedule.trailing(4)  # 1000, 750, 500, 250
    plain, whole = sd.eps(DOG, w=3.0), held().eps(DOG, w=3.0)
    part = held(path, window=(0.25, 0.75)).eps(DOG, w=3.0)
    inside = {1000: False, 750: True, 749: True, 501: True, 500: True, 251: True, 250: False,
              1: False, 751: False}
    for t in (500, 1, 750, 751, 500, 1000, 249, 749, 250, 251, 501):  # in any order, and twice
        wanted = whole if inside.get(t, False) else plain
        assert torch.equal(part(x, t), wanted(x, t))
    assert torch.equal(held(path, window=(0.5, 0.5)).eps(DOG, w=3.0)(x, 500), plain(x, 500))
    for window, t in (((0.0, 0.5), 1000), ((0.5, 1.0), 50)):  # beyond both ends of the path
        assert torch.equal(held([800, 400, 100], window=window).eps(DOG, w=3.0)(x, t), whole(x, t))


def test_the_network_is_as_it_was_and_so_is_the_model():
    sd, before = small()["sd"], seam(small()["sd"].unet)
    mine = held()
    draw(mine, noise(), 2, DOG, w=3.0)
    assert seam(sd.unet) == before and sd.beside is None and mine.unet is sd.unet


# ---- the halves of guidance, and the scales ---------------------------------------------------


@torch.no_grad()
def test_the_negative_half_follows_the_hint_or_not():
    sd, x = small()["sd"], noise()
    negative = sd.eps(DOG, w=0.0)(x, 500)
    assert torch.equal(held(negative_hint=False).eps(DOG, w=0.0)(x, 500), negative)
    assert (held().eps(DOG, w=0.0)(x, 500) - negative).abs().max() > 1e-2
    wanted = negative + 3 * (held().eps(DOG)(x, 500) - negative)
    assert_close(held(negative_hint=False).eps(DOG, w=3.0)(x, 500), wanted, rtol=0, atol=2e-5)


@torch.no_grad()
def test_without_words_only_a_negative_half_without_hint_leads_to_it():
    x, plain = noise(), held().eps("")(noise(), 500)
    assert_close(held().eps("", w=9.0)(x, 500), plain, rtol=0, atol=2e-5)
    assert (held(negative_hint=False).eps("", w=9.0)(x, 500) - plain).abs().max() > 1e-2


@torch.no_grad()
def test_fading_rises_from_a_tenth_to_one_whatever_the_number_of_maps(models):
    """With Stable Diffusion's twelve skips it is the official 0.825^(12 - i) within 1e-3."""
    for sd, widths, skips in ((models["sd15"], (4,) * 4, 12), (tiny.latent(), (4, 8), 4)):
        net = trained(sd, widths=widths)
        x, side = sd.noise(1, seeded(), (64, 64)), 64
        hint, inputs = torch.rand(1, 3, side, side), {"encoder_hidden_states": sd.text(DOG).tokens}
        plain, faded, twice = (residuals(sd, Control(net, hint, **more), x, 9, inputs, 1)
                               for more in ({}, {"fade": True}, {"strength": 2.0}))
        factors = torch.stack([f.norm() / p.norm() for p, f in zip(plain, faded, strict=True)])
        assert len(factors) == skips + 1
        assert_close(factors, torch.logspace(-1, 0, skips + 1))
        assert_close(twice, [2 * r for r in plain])
        if skips == 12:
            assert_close(factors, 0.825 ** torch.arange(12.0, -1, -1), rtol=0, atol=2e-3)


@torch.no_grad()
def test_each_picture_may_have_a_hint_of_its_own():
    x, hints = noise(3), torch.rand(3, 3, 16, 16, generator=seeded(7))
    prompts = [DOG, "a cat", "a bee"]
    for w in (1.0, 3.0):
        together = held(hint=hints).eps(prompts, w=w)(x, 500)
        for row in range(3):
            one = held(hint=hints[row:row + 1]).eps(prompts[row], w=w)(x[row:row + 1], 500)
            assert_close(together[row:row + 1], one, rtol=0, atol=2e-5)


# ---- with other methods -----------------------------------------------------------------------


def halves(sd: Latent, target: str, **more):
    with torch.no_grad():
        path = sd.schedule.trailing(4)
        return last(p2p.pair(sd, noise(1), "a dog", target, path, **more)).x.chunk(2)


def test_prompt_to_prompt_under_control():
    sd, path = small()["sd"], small()["sd"].schedule.trailing(4)
    mine = held(path, window=(0.0, 0.5))
    plain, none = (halves(model, "a cat") for model in (sd, held(strength=0.0)))
    assert torch.equal(none[0], plain[0]) and torch.equal(none[1], plain[1])
    source, target = halves(mine, "a dog")
    assert torch.equal(source, target)  # identical prompts
    source, target = halves(mine, "a cat")
    with torch.no_grad():
        alone = last(ddim(mine.eps("a dog", w=7.5), sd.schedule, noise(1), path)).x
        other = last(ddim(mine.eps("a cat", w=7.5), sd.schedule, noise(1), path)).x
    assert_close(source, alone, rtol=0, atol=2e-5 * float(alone.abs().max()))
    for different in (plain[1], source, other):  # the hint, the words and the attention all count
        assert (target - different).abs().max() > 1e-3
    blended = halves(mine, "a cat", blend=Blend("dog", "cat", threshold=1.0))
    assert torch.equal(blended[1], source)


@torch.no_grad()
def test_a_hint_for_each_side_of_prompt_to_prompt():
    """The source with its own hint, the target with another."""
    hints = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    source, target = halves(held(hint=hints), "a dog")
    assert_close(source, halves(held(hint=hints[:1]), "a dog")[0], rtol=0, atol=1e-4)
    assert (source - target).abs().max() > 1e-2


def test_attention_under_control_is_the_u_nets_alone():
    seen = []
    with controlled(small()["sd"].unet, probs=lambda site, A: seen.append(site.name) or A):
        with torch.no_grad():
            held().eps(DOG)(noise(), 500)
    with controlled(small()["sd"].unet) as sites, torch.no_grad():
        small()["sd"].eps(DOG)(noise(), 500)
    assert seen == [site.name for site in sites]


def test_sdedit_under_control_enters_a_path_between_two_of_its_times():
    sd, guide, path = small()["sd"], 0.5 * noise(), small()["sd"].schedule.trailing(4)

    def edited(model: Latent) -> torch.Tensor:
        return sdedit.edit(model.eps(DOG, w=3.0), sd.schedule, guide, 600, path,
                           generator=seeded())  # 600, 500, 250, 0

    plain = edited(sd)
    assert torch.equal(edited(held(strength=0.0)), plain)
    assert torch.equal(edited(held(path, window=(0.0, 0.25))), plain)  # 1000 .. 751
    for window in ((0.0, 0.5), (0.25, 0.5), (0.75, 1.0)):
        assert (edited(held(path, window=window)) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_edit_inverts_and_draws_under_control():
    sd, x, path = small()["sd"], 0.5 * noise(), small()["sd"].schedule.trailing(6)
    net, hint = small()["net"], small()["hint"]
    given = {"net": net, "hint": hint, "prompt": "a dog", "target": "a cat", "path": path}
    found = edit(sd, x, **given, w=3.0, strength=0.7, window=(0.0, 0.5))
    states = list(invert(sd.eps("a dog"), sd.schedule, x, path))
    mine = held(path, strength=0.7, window=(0.0, 0.5)).eps("a cat", w=3.0)
    assert torch.equal(found, last(ddim(mine, sd.schedule, states[-1].x, path)).x)
    assert torch.equal(edit(sd, states, **given, w=3.0, strength=0.7, window=(0.0, 0.5)), found)


@torch.no_grad()
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.bfloat16),
                                    (torch.bfloat16, torch.float32)])
def test_each_network_keeps_its_own_precision(models, dtypes):
    sd = models["sdxl"]
    unet, net = (deepcopy(m).to(d) for m, d in zip((sd.unet, trained(sd)), dtypes, strict=True))
    encoders = tuple(deepcopy(e).to(dtypes[0]) for e in sd.encoders)
    mixed = replace(sd, unet=unet, encoders=encoders)
    x, hint = sd.noise(1, seeded(), (64, 64)), torch.rand(1, 3, 64, 64, generator=seeded(3))
    out = under(mixed, Control(net, hint)).eps(CAT, w=2.0)(x, 700)
    whole = under(sd, Control(trained(sd), hint)).eps(CAT, w=2.0)(x, 700)
    assert out.dtype == x.dtype
    assert_close(out, whole, rtol=0, atol=0.2)


# ---- how it learns ----------------------------------------------------------------------------


def joints(net: ControlNetModel) -> tuple[list[str], list[str]]:
    """The names of the parameters of the outer zero convolutions, and of all others."""
    names = [name for name, _ in net.named_parameters()]
    outer = [n for n in names if n.startswith(("controlnet_down_blocks", "controlnet_mid_block"))]
    return outer, [n for n in names if n not in outer]


def slopes(net: torch.nn.Module) -> dict[str, float]:
    return {name: 0.0 if p.grad is None else float(p.grad.abs().max())
            for name, p in net.named_parameters()}


def test_first_the_zero_convolutions_learn_then_the_rest():
    sd, x, target = small()["sd"], noise(), noise(seed=6)
    net = fresh(sd, (4, 8)).requires_grad_(True)
    outer, inner = joints(net)
    mine = under(sd, Control(net, small()["hint"])).eps("a dog")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)

    def step() -> dict[str, float]:
        optimiser.zero_grad()
        (mine(x, 500) - target).square().mean().backward()
        found = slopes(net)
        optimiser.step()
        return found

    first = step()
    assert min(first[n] for n in outer) > 1e-6 and max(first[n] for n in inner) == 0.0
    second = step()
    # the hint's own last convolution still is zero: what lies before it sleeps for a step more
    asleep = [n for n in inner if n.startswith("controlnet_cond_embedding") and "conv_out" not in n]
    assert min(second[n] for n in inner if n not in asleep) > 0
    assert max(second[n] for n in asleep) == 0.0
    third = step()
    assert min(third[n] for n in asleep) > 0
    assert not any(p.requires_grad for p in sd.unet.parameters())


# ---- by hand ----------------------------------------------------------------------------------

SMALL = {"channels": (8, 16), "encoder": (2, 1), "decoder": (2, 1), "attention": (1,),
         "head_dim": 8, "groups": 4}


@torch.no_grad()
def pixels(**more) -> UNet:
    net, generator = UNet(**SMALL | more).eval(), seeded(4)
    for p in net.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return net


X, HINT = torch.randn(2, 3, 16, 24, generator=seeded()), torch.rand(2, 1, 16, 24)
T = torch.tensor([300, 700])


@torch.no_grad()
@pytest.mark.parametrize("unshuffle", [1, 2])
def test_by_hand_it_begins_as_the_network_to_the_bit(unshuffle):
    net = pixels(unshuffle=unshuffle)
    mine = Controlled(net, 1)
    assert torch.equal(mine(X, T, HINT), net(X, T))
    assert not any(p.requires_grad for p in net.parameters())
    for part in ("time", "input", "down_blocks", "shrink", "mid_block"):
        assert_close(getattr(mine.copy, part).state_dict(), getattr(net, part).state_dict(),
                     rtol=0, atol=0)


@torch.no_grad()
def test_by_hand_it_is_the_equation():
    """With Z_2 = 1 and Z_1 = 0 each skip is doubled; a Z_1 that copies the input shows the hint."""
    net = pixels(unshuffle=1)
    mine = Controlled(net, 8)
    for z in mine.copy.leave:
        z.weight.copy_(torch.eye(len(z.weight))[:, :, None, None])
    skips = []
    modules = [*net.down_blocks[0], *net.down_blocks[1], net.mid_block]
    hooks = [m.register_forward_hook(lambda _m, _i, y: skips.append(y)) for m in modules]
    net(X, T)
    for hook in hooks:
        hook.remove()
    assert_close(mine(X, T, torch.zeros(2, 8, 16, 24)), net(X, T, residuals=skips))
    mine.copy.enter.weight.copy_(torch.eye(8)[:, :, None, None])
    hint = torch.rand(2, 8, 16, 24)
    seen = []
    hook = mine.copy.down_blocks[0][0].register_forward_pre_hook(lambda _m, a: seen.append(a[0]))
    mine(X, T, hint)
    hook.remove()
    assert_close(seen[0], net.input(X) + hint)


def test_by_hand_it_learns_in_the_same_order_and_leaves_the_network_alone():
    net = pixels().requires_grad_(False)
    before = deepcopy(net.state_dict())
    mine = Controlled(net, 1)
    optimiser = torch.optim.SGD([p for p in mine.parameters() if p.requires_grad], lr=0.1)
    found = []
    for _ in range(2):
        optimiser.zero_grad()
        (mine(X, T, HINT) - X).square().mean().backward()
        found.append(slopes(mine.copy))
        optimiser.step()
    outer = [n for n in found[0] if n.startswith("leave")]
    assert min(found[0][n] for n in outer) > 1e-6
    assert max(v for n, v in found[0].items() if n not in outer) == 0.0
    assert min(found[1].values()) > 0
    assert_close(net.state_dict(), before, rtol=0, atol=0)


@torch.no_grad()
def test_by_hand_it_is_a_predictor_whose_strength_is_a_factor(generator):
    mine = Controlled(pixels(), 1)
    for p in mine.copy.leave.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=generator))
    schedule = small()["sd"].schedule
    eps = from_network(mine, schedule, "v", hint=HINT)
    assert (eps(X, 300) - from_network(mine.net, schedule, "v")(X, 300)).abs().max() > 1e-2
    assert torch.equal(mine(X, T, HINT, 0.0), mine.net(X, T))
    assert_close(mine(X, 300, HINT[:1])[:1], mine(X[:1], 300, HINT[:1]), rtol=0, atol=1e-5)
    assert zero_conv(3, 5)(torch.randn(1, 3, 2, 2)).abs().max() == 0


def test_by_hand_what_does_not_fit_is_refused():
    refused(Controlled, "net has context_dim=4: accepted is a UNet without", net=pixels(
        context_dim=4))
    mine = Controlled(pixels(), 1)
    for hint in (HINT[:, :, :8], HINT.repeat(1, 3, 1, 1), HINT[0], HINT.repeat(2, 1, 1, 1)):
        refused(mine, f"hint has shape {tuple(hint.shape)}, expected (1 or 2, 1, 16, 24)",
                x=X, t=T, hint=hint)


# ---- folders ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("controlnet")
    trained(models["sd15"]).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_folder_is_read_whole_frozen_and_in_the_precision_asked_for(saved, models):
    net = load(saved)
    assert isinstance(net, ControlNetModel) and not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert_close(net.state_dict(), trained(models["sd15"]).state_dict(), rtol=0, atol=0)
    half = load(str(saved), "cpu", torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    controlnet.check_fit(models["sd15"], net)


def test_a_folder_in_half_precision_is_read_in_single(copied):
    state = {k: v.half() for k, v in load_file(copied / WEIGHTS).items()}
    save_file(state, copied / WEIGHTS, {"format": "pt"})
    net = load(copied)
    assert_close(net.state_dict(), {k: v.float() for k, v in state.items()}, rtol=0, atol=0)


def lose_a_weight(folder) -> None:
    state = load_file(folder / WEIGHTS)
    del state["conv_in.bias"]
    save_file(state, folder / WEIGHTS, {"format": "pt"})


def cut(folder) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-20])


@pytest.mark.parametrize("damage, said", [
    (lambda f: (f / "config.json").unlink(), "no ControlNet (config.json is missing): accepted is"),
    (lambda f: tiny_sd.rewrite(f / "config.json", _class_name="UNet2DModel"),
     "no ControlNet (config.json says UNet2DModel): accepted is a ControlNetModel as diffusers'"),
    (lambda f: (f / "config.json").write_text("{"), "config.json' is damaged: it is no JSON"),
    (lambda f: tiny_sd.rewrite(f / "config.json", cross_attention_dim=8), "cannot be read ("),
    (lambda f: (f / WEIGHTS).rename(f / "weights.bin"), "has no safetensors weights"),
    (lose_a_weight, "lacks 1 weights, as conv_in.bias"),
    (cut, "is damaged or no safetensors file"),
])
def test_a_folder_that_holds_no_controlnet_is_refused_in_one_line(copied, damage, said):
    damage(copied)
    with pytest.raises(ValueError) as refusal:
        load(copied)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_other_sources_are_refused(folders, saved, monkeypatch):
    refused(load, f"'{folders['sd15']}' is no ControlNet", source=folders["sd15"])
    refused(load, "'judge' is no ControlNet (config.json says None)", source="judge")
    refused(load, "source='nothing here' is not known", source="nothing here")
    refused(load, "device='gpu' is not known", source=saved, device="gpu")
    refused(load, "dtype=torch.float64: accepted are torch.float32", source=saved,
            dtype=torch.float64)
    monkeypatch.setattr(checkpoint, "free_memory", lambda device: 1000)
    refused(load, f"'{saved}' does not fit", source=saved)


def test_a_hub_id_is_judged_by_its_page_before_its_weights_are_fetched(saved, monkeypatch):
    asked, wanted = [], {"_class_name": "UNet2DModel"}

    def fetch(self, files):
        asked.append(files)
        return saved if "_class_name" not in wanted else page

    page = saved.parent / "page"
    page.mkdir(exist_ok=True)
    (page / "config.json").write_text(json.dumps(wanted))
    found = checkpoint.Checkpoint("somebody/something", ("config.json", WEIGHTS), None)
    monkeypatch.setattr(controlnet.checkpoint, "find", lambda source: found)
    monkeypatch.setattr(checkpoint.Checkpoint, "fetch", fetch)
    refused(load, "'somebody/something' is no ControlNet (config.json says UNet2DModel)",
            source="somebody/something")
    assert asked == [["config.json"]]
    wanted.clear()
    monkeypatch.setattr(checkpoint.Checkpoint, "count", lambda self, file: 1)
    assert isinstance(load("somebody/something"), ControlNetModel)
    assert asked[1:] == [["config.json"], ["config.json", WEIGHTS]]


# ---- hints ------------------------------------------------------------------------------------


def test_maps_of_the_world_become_hints(generator):
    p = portraits.sample(2, generator)
    for maps in (portraits.silhouette(p), portraits.edges(p), portraits.depth(p)):
        hint = as_hint(maps)
        assert hint.shape == (2, 3, 64, 64) and hint.dtype == torch.float32
        assert torch.equal(hint[:, 1], maps.float().reshape(2, 64, 64))
    assert as_hint(maps, 1).shape == (2, 1, 64, 64)
    Control(small()["net"], hint)


@pytest.mark.parametrize("maps, said", [
    (torch.rand(64, 64), "maps is (64, 64): accepted are (b, h, w) and (b, 1, h, w)"),
    (torch.rand(1, 3, 64, 64), "maps is (1, 3, 64, 64): accepted are"),
    ("a picture", "maps is str: accepted are"),
    (2 * torch.ones(1, 8, 8), "hint has values in [2, 2]: accepted are [0, 1]"),
])
def test_other_maps_are_refused(maps, said):
    refused(as_hint, said, maps=maps)


ONE = torch.rand(1, 3, 16, 16)


@pytest.mark.parametrize("change, said", [
    ({"net": "portraits-controlnet"}, "net is str: accepted is a ControlNetModel, as of load"),
    ({"net": tiny.latent().unet}, "net is UNet2DConditionModel: accepted is a ControlNetModel"),
    ({"hint": ONE > 0.5}, "hint is torch.bool: accepted is a floating tensor in [0, 1]"),
    ({"hint": "a cat"}, "hint is str: accepted is a floating tensor"),
    ({"hint": ONE[0]}, "hint has shape (3, 16, 16): accepted is (b, 3, h, w)"),
    ({"hint": ONE[:, :1]}, "hint has shape (1, 1, 16, 16): accepted is (b, 3, h, w)"),
    ({"hint": 2 * ONE - 1}, "hint has values in [-"),
    ({"hint": 255 * ONE}, "hint has values in ["),
    ({"hint": ONE / 0 * 0}, "hint has values in [nan, nan]: accepted are [0, 1]"),
    ({"strength": float("nan")}, "strength=nan: accepted is a finite number"),
    ({"strength": float("inf")}, "strength=inf: accepted is a finite number"),
    ({"strength": "1"}, "strength='1': accepted is a finite number"),
    ({"window": (0.0, 1.2)}, "window=(0.0, 1.2): accepted are two shares of the hops in [0, 1]"),
    ({"window": (-0.1, 1.0)}, "window=(-0.1, 1.0): accepted are"),
    ({"window": (0.6, 0.2)}, "window=(0.6, 0.2): accepted are two shares"),
    ({"window": 0.5}, "window=0.5: accepted are two shares"),
    ({"window": (0.0, 0.5)}, "path is missing: window=(0.0, 0.5) is shares of its hops"),
])
def test_a_bad_control_is_refused_before_anything_is_drawn(change, said):
    refused(held, said, **change)


def test_a_hint_of_another_size_or_number_is_refused_when_the_picture_is_seen():
    x = noise(3)
    for change, said in (
        ({"hint": torch.rand(1, 3, 16, 24)}, "hint is 16x24 pixels, the picture 16x16: accepted"),
        ({"hint": torch.rand(1, 3, 64, 64)}, "hint is 64x64 pixels, the picture 16x16: accepted"),
        ({"hint": torch.rand(2, 3, 16, 16)}, "hint: 2 for 3 pictures, accepted are 1 and 3"),
    ):
        for w in (1.0, 3.0):
            refused(held(**change).eps(DOG, w=w), said, x=x, t=500)
    refused(held().eps(DOG), "x: 2 channels, the network takes 3", x=x[:, :2], t=500)


def test_a_controlnet_of_another_model_is_refused(models, sets):
    one, hint = models["sd15"], torch.rand(1, 3, 64, 64)
    other = tiny_sd.unet("cccp", 12, (8, 16, 16, 16), attention_head_dim=2)
    narrow = ControlNetModel.from_unet(other, conditioning_embedding_out_channels=(4,) * 4)
    for net, said in (
        (sets["sd21"].nets[0], "net has block_out_channels=(8, 16, 32, 32), the U-Net of the model "
                               "(8, 16, 16, 16): accepted is a ControlNet that was made for it"),
        (sets["sdxl"].nets[0], "net has block_out_channels=(8, 16, 32), the U-Net"),
        (narrow, "net has cross_attention_dim=12, the U-Net of the model 16: accepted"),
        (fresh(one, (4,) * 3), "net brings hints down 4 times, the autoencoder of the model "
                               "pictures 8 times"),
    ):
        refused(under, said, sd=one, controls=Control(net, hint))
    pooling = fresh(one)
    pooling.register_to_config(global_pool_conditions=True)
    refused(under, "net pools its hints over the picture", sd=one, controls=Control(pooling, hint))
    refused(under, "net is on meta, the model on cpu", sd=one,
            controls=Control(fresh(one).to("meta"), hint))


def test_control_over_control_is_refused():
    refused(under, "sd has a network beside its U-Net: accepted are all controls at once",
            sd=held(), controls=[])
