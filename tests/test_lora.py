"""LoRA: read by diffusers and peft, exact where it must be, and gone when its block ends."""

import importlib.util
import json
import math
from copy import deepcopy
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, UNet2DModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.models.attention_processor import (
    AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor,
)
from diffusers.utils import convert_state_dict_to_diffusers
from injected import refused
from torch import nn
from torch.testing import assert_close

from coursekit import pretrained
from coursekit.diffusion.predict import to_eps
from coursekit.diffusion.sample import ddim, last
from coursekit.edits import p2p
from coursekit.nets import lora_file, lora_fit, tiny
from coursekit.nets.control import controlled, tapped
from coursekit.nets.lora import Factors, Lora, LoRALinear, applied, merge, mix, places, unmerge
from coursekit.nets.unet import UNet

NETS = ("own", "unconditional", "sd15", "sd21", "sdxl")
peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None,
                          reason="peft is not installed: pip install peft")


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def own():
    net = UNet(channels=(8, 16), encoder=(1, 1), decoder=(1, 2), attention=(0, 1), head_dim=8,
               groups=4, unshuffle=1, context_dim=12)
    x, context = torch.randn(2, 3, 8, 16), torch.randn(2, 5, 12)
    return net, lambda: net(x, torch.tensor([3, 700]), context)


def unconditional():
    net = UNet2DModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1,
                      norm_num_groups=4, attention_head_dim=8,
                      down_block_types=("AttnDownBlock2D",) * 2,
                      up_block_types=("AttnUpBlock2D",) * 2)
    x = torch.randn(2, 3, 8, 16)
    return net, lambda: net(x, torch.tensor([3, 700])).sample


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(params=NETS)
def case(request):
    """A network whose every weight counts (fresh ones hold zeros), and a pass through it."""
    if request.param in ("own", "unconditional"):
        net, run = {"own": own, "unconditional": unconditional}[request.param]()
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
        return net.eval(), run
    sd = request.getfixturevalue("models")[request.param]
    z = sd.noise(1, seeded())
    return sd.unet, lambda: sd.eps("a cat")(z, 400)


@pytest.fixture
def unet():
    """The tiny U-Net and a pass through it."""
    sd = tiny.latent()
    z = sd.noise(2, seeded())
    return sd.unet, lambda: sd.eps("a dog")(z, 400)


def learnt(net: nn.Module, rank: int = 3, alpha: float = 6.0, seed: int = 0) -> Lora:
    """A LoRA that changes something, as one that was fitted: B is not zero."""
    generator = seeded(seed)
    fresh = Lora.fresh(net, rank, alpha=alpha, generator=generator)
    return Lora({path: Factors(f.A, 0.1 * torch.randn(f.B.shape, generator=generator), f.alpha)
                 for path, f in fresh.layers.items()})


def doubled(lora: Lora) -> Lora:
    return Lora({path: Factors(f.A.double(), f.B.double(), f.alpha)
                 for path, f in lora.layers.items()})


def kept(net: nn.Module) -> list:
    """All that a LoRA may touch, by identity, and the weights themselves."""
    return [(name, id(m)) for name, m in net.named_modules()], [
        (name, id(p), p.requires_grad, p.detach().clone()) for name, p in net.named_parameters()]


def as_before(before: list, net: nn.Module) -> bool:
    modules, parameters = kept(net)
    return modules == before[0] and all(
        a[:3] == b[:3] and torch.equal(a[3], b[3]) for a, b in zip(before[1], parameters,
                                                                   strict=True))


# ---- what diffusers and peft make of a file


def uneven(net: nn.Module) -> Lora:
    """Two ranks, three alphas, and a layer left out."""
    layers = dict(learnt(net, 2, 2).layers)
    layers.popitem()
    first, *_, final = layers
    layers[first] = learnt(net, 4, 8, seed=1).layers[first]
    layers[final] = Factors(layers[final].A, layers[final].B, 0.5)
    return Lora(layers)


@peft
@pytest.mark.parametrize("topology", ["sd15", "sdxl"], indirect=True)
def test_a_pipeline_of_diffusers_predicts_with_the_file_what_we_predict(
        sd, topology, folders, tmp_path):
    lora = uneven(sd.unet)
    lora_file.save(tmp_path / lora_file.NAME, lora)
    pipe = DiffusionPipeline.from_pretrained(folders[topology])
    pipe.load_lora_weights(tmp_path, weight_name=lora_file.NAME)
    z = sd.noise(1, seeded())
    plain = sd.eps("a cat")(z, 400)
    theirs = replace(sd, unet=pipe.unet).eps("a cat")(z, 400)
    with applied(sd.unet, lora):
        ours = sd.eps("a cat")(z, 400)
    assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
    assert (ours - plain).abs().max() > 1e-2


@peft
def test_a_file_of_diffusers_is_read_and_has_our_layers(unet, tmp_path):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    net, _ = unet
    theirs = deepcopy(net)
    theirs.add_adapter(LoraConfig(
        r=3, lora_alpha=7, init_lora_weights=False, rank_pattern={"attn2.to_q": 2},
        alpha_pattern={"to_v": 5}, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, convert_state_dict_to_diffusers(get_peft_model_state_dict(theirs)),
        unet_lora_adapter_metadata=theirs.peft_config["default"].to_dict())
    lora = lora_file.load(tmp_path / lora_file.NAME)
    assert lora.layers.keys() == places(net).keys()
    assert {(f.rank, f.alpha) for f in lora.layers.values()} == {(2, 7), (3, 7), (3, 5)}
    z, text = tiny.latent().noise(2, seeded()), tiny.latent().text("a dog").rows(2).tokens
    wanted = theirs(z, 399, text).sample
    with applied(net, lora):
        assert_close(net(z, 399, text).sample, wanted, atol=2e-6, rtol=1e-5)


def test_the_layout_is_diffusers_and_its_numbers_are_the_update(unet, tmp_path):
    """What diffusers reads off the file, put to use by hand as peft documents it."""
    net, run = unet
    lora = uneven(net)
    file = lora_file.save(tmp_path / lora_file.NAME, lora)
    state, alphas, settings = StableDiffusionLoraLoaderMixin.lora_state_dict(
        tmp_path, weight_name=file.name, return_lora_metadata=True)
    assert alphas is None and len(state) == 2 * len(lora.layers)
    assert settings["unet.target_modules"] == sorted(lora.layers)

    def said(name: str, pattern: str, path: str) -> float:
        return settings[f"unet.{pattern}"].get(f"^{path}", settings[f"unet.{name}"])

    by_hand = deepcopy(net)
    for path in lora.layers:
        A, B = (state[f"unet.{path}.lora_{side}.weight"] for side in "AB")
        assert len(A) == said("r", "rank_pattern", path)
        scale = said("lora_alpha", "alpha_pattern", path) / len(A)
        by_hand.get_submodule(path).weight.data += scale * (B @ A)
    with applied(net, lora):
        ours = run()
    sd = replace(tiny.latent(), unet=by_hand)
    assert_close(sd.eps("a dog")(sd.noise(2, seeded()), 400), ours, atol=2e-6, rtol=1e-5)


def test_a_file_gives_back_what_was_written(unet, tmp_path):
    lora = uneven(unet[0])
    back = lora_file.load(lora_file.save(tmp_path / "mine.safetensors", lora))
    assert back.layers.keys() == lora.layers.keys()
    for path, f in lora.layers.items():
        got = back.layers[path]
        assert torch.equal(got.A, f.A) and torch.equal(got.B, f.B) and got.alpha == f.alpha
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]


def test_without_settings_alpha_is_the_rank_and_halves_become_float32(unet, tmp_path):
    lora = learnt(unet[0], 3, 6)
    safetensors.torch.save_file(
        {f"unet.{path}.lora_{side}.weight": getattr(f, side).half()
         for path, f in lora.layers.items() for side in "AB"}, tmp_path / "theirs.safetensors")
    back = lora_file.load(tmp_path / "theirs.safetensors")
    assert {(f.alpha, f.A.dtype, f.B.dtype) for f in back.layers.values()} == {
        (3, torch.float32, torch.float32)}


# ---- identities


def test_a_fresh_one_changes_no_bit(case):
    net, run = case
    plain, before = run(), kept(net)
    with applied(net, Lora.fresh(net, 4, generator=seeded())):
        assert torch.equal(run(), plain)
        with controlled(net, qkv=lambda site, q, k, v: (q, k, v)):
            assert torch.equal(run(), plain)
    assert torch.equal(run(), plain) and as_before(before, net)


def test_every_attention_is_adapted_and_counts(case):
    """Each of its four layers alone changes the output: none is missed or read past."""
    net, run = case
    with controlled(net) as sites:
        plain = run()
    lora = learnt(net)
    assert len(lora.layers) == 4 * len(sites)
    some = list(lora.layers)[:4] + list(lora.layers)[-4:]
    for path in some:
        with applied(net, Lora({path: lora.layers[path]})):
            assert not torch.equal(run(), plain), path


def test_merged_is_applied_and_unmerged_is_the_network_itself(case):
    net, run = case
    lora, plain, before = learnt(net), run(), kept(net)
    with applied(net, lora, 0.7):
        wanted = run()
    merged = merge(net, lora, 0.7)
    assert_close(run(), wanted, atol=1e-6, rtol=1e-6)
    unmerge(net, merged)
    assert as_before(before, net) and torch.equal(run(), plain)


def test_a_layer_is_that_of_the_papers_equation():
    """W' x = W x + (alpha / r) B A x: beside the weights, in them, and in float64 by hand."""
    attn, x = own()[0].mid_block[0].attention.attn1, torch.randn(50, 16)
    lora = learnt(attn)
    f, W = lora.layers["to_q"], attn.to_q.weight.detach().double()
    wanted = x.double() @ (W + 6 / 3 * f.B.double() @ f.A.double()).T
    beside = LoRALinear(attn.to_q, f)(x)
    merge(attn, lora)
    for y in (beside, attn.to_q(x)):
        assert_close(y.double(), wanted, atol=1e-6, rtol=1e-6)


def test_scale_has_its_ends_and_is_linear_in_the_weights(case):
    net, run = case
    lora, plain = learnt(net), run()
    with applied(net, lora, 0.0):
        assert torch.equal(run(), plain)
    with applied(net, lora):
        whole = run()
    with applied(net, lora, 1.0):
        assert torch.equal(run(), whole)
    half = Lora({path: Factors(f.A, f.B, f.alpha / 2) for path, f in lora.layers.items()})
    with applied(net, half, 2):
        assert torch.equal(run(), whole)  # a factor of two loses no bit
    assert (whole - plain).abs().max() > 1e-3


def test_only_the_lora_takes_gradients():
    net, _ = own()
    for p in net.parameters():
        p.add_(0.05 * torch.randn_like(p))
    next(net.parameters()).requires_grad_(False)
    lora, before = learnt(net), kept(net)
    for f in lora.layers.values():
        f.A.requires_grad_(), f.B.requires_grad_()
    x, context = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 12)
    with torch.enable_grad(), applied(net, lora):
        net(x, torch.tensor([3, 700]), context).square().mean().backward()
    assert all(p.grad is None for p in net.parameters()) and as_before(before, net)
    assert all(side.grad.abs().max() > 0 for f in lora.layers.values() for side in (f.A, f.B))


def test_at_the_start_only_B_learns():
    """B = 0 keeps A's gradient at zero, exactly, in the first step."""
    net, _ = own()
    for p in net.parameters():
        p.add_(0.05 * torch.randn_like(p))
    lora = Lora.fresh(net, 2, generator=seeded())
    for f in lora.layers.values():
        f.A.requires_grad_(), f.B.requires_grad_()
    with torch.enable_grad(), applied(net, lora):
        net(torch.randn(1, 3, 8, 8), 9, torch.randn(1, 5, 12)).square().mean().backward()
    assert all(f.B.grad.abs().max() > 0 and not f.A.grad.any() for f in lora.layers.values())


def test_the_update_has_the_rank_and_the_numbers_it_should():
    net = tiny.latent().unet
    lora = learnt(net, rank=3)
    for path, f in lora.layers.items():
        W = net.get_submodule(path).weight
        s = torch.linalg.svdvals(lora.delta(path).double())
        assert lora.delta(path).shape == W.shape and s[3] < 1e-6 * s[0] < s[2]
        assert f.A.numel() + f.B.numel() == 3 * sum(W.shape)  # 2 r d of a square layer
        assert_close(lora.delta(path), 2 * f.B @ f.A)  # alpha / r = 6 / 3


def test_a_fresh_A_is_normal_with_deviation_one_over_the_rank():
    lora = Lora.fresh(tiny.latent().unet, 4, generator=seeded())
    A = torch.cat([f.A.flatten() for f in lora.layers.values()]) * 4
    assert abs(A.mean()) < 4 * len(A)**-0.5 and abs(A.var() - 1) < 4 * (2 / len(A))**0.5
    again = Lora.fresh(tiny.latent().unet, 4, generator=seeded())
    assert all(torch.equal(f.A, again.layers[path].A) for path, f in lora.layers.items())
    assert {f.scale for f in lora.layers.values()} == {1.0}


def regauged(lora: Lora) -> Lora:
    """Other factors of the same update: B G and G^-1 A."""
    layers, generator = {}, seeded(9)
    for path, f in lora.layers.items():
        G = torch.linalg.qr(torch.randn(f.rank, f.rank, generator=generator))[0] * 2
        layers[path] = Factors(torch.linalg.solve(G, f.A), f.B @ G, f.alpha)
    return Lora(layers)


def test_factors_are_not_unique_so_that_their_interpolation_means_nothing(unet):
    net, run = unet
    a = learnt(net)
    b = regauged(a)
    for path, f in a.layers.items():
        g = b.layers[path]
        assert_close(a.delta(path), b.delta(path), atol=1e-6, rtol=1e-5)
        assert_close(mix(a, b, 0.5).delta(path), a.delta(path), atol=1e-6, rtol=1e-5)
        lerped = f.scale * (f.B + g.B) / 2 @ (f.A + g.A) / 2
        assert (lerped - a.delta(path)).norm() > 0.2 * a.delta(path).norm()
    with applied(net, a):
        ours = run()
    with applied(net, b):
        assert_close(run(), ours, atol=1e-5, rtol=0)


def test_a_mix_is_that_of_the_updates(unet):
    """Other ranks, alphas and places in each; the network between is the mean of weights."""
    net, run = unet
    a, b = uneven(net), learnt(net, 5, 2, seed=2)
    b = Lora(dict(list(b.layers.items())[3:]))
    m = mix(a, b, 0.3)
    assert m.layers.keys() == a.layers.keys() | b.layers.keys()
    for path, f in m.layers.items():
        parts = [(w, lora) for w, lora in ((0.7, a), (0.3, b)) if path in lora.layers]
        assert f.rank == sum(lora.layers[path].rank for _, lora in parts)
        dense = sum(w * lora.delta(path).double() for w, lora in parts)
        assert_close(m.delta(path).double(), dense, atol=1e-6, rtol=1e-6)
    merged = [merge(net, a, 0.7), merge(net, b, 0.3)]
    wanted = run()
    for one in reversed(merged):
        unmerge(net, one)
    with applied(net, m):
        assert_close(run(), wanted, atol=2e-6, rtol=1e-5)


def test_the_ends_of_a_mix_are_exact(unet):
    net, run = unet
    a, b = learnt(net, 3), learnt(net, 2, seed=1)
    for share, end in ((0, a), (1, b), (0.0, a), (1.0, b)):
        assert mix(a, b, share) is end
    with applied(net, a):
        ours = run()
    with applied(net, mix(a, b, 1e-9)):
        assert_close(run(), ours, atol=1e-6, rtol=0)


def test_blocks_stack_and_updates_add_up(unet):
    net, run = unet
    a, b, before = learnt(net), uneven(net), kept(net)
    with applied(net, a, 0.5):
        with applied(net, b):
            ours = run()
            assert Lora.fresh(net, 2).layers.keys() == a.layers.keys()
        with applied(net, a, 0.5):
            twice = run()
    merged = [merge(net, a, 0.5), merge(net, b)]
    assert_close(run(), ours, atol=2e-6, rtol=1e-5)
    for one in reversed(merged):
        unmerge(net, one)
    with applied(net, a):
        assert_close(run(), twice, atol=2e-6, rtol=1e-5)
    assert as_before(before, net)


def test_a_control_sees_the_update_on_either_side_of_its_block(unet):
    net, run = unet
    lora = learnt(net)
    probs = {"probs": lambda site, A: A.flip(-1)}
    with applied(net, lora), controlled(net, **probs):
        inside = run()
    with controlled(net, **probs), applied(net, lora):
        assert torch.equal(run(), inside)
    with controlled(net, **probs):
        assert (run() - inside).abs().max() > 1e-3
    with applied(net, lora):
        plain = run()
        with controlled(net, probs=lambda site, A: A):
            assert_close(run(), plain, atol=2e-6, rtol=0)


def test_every_processor_of_diffusers_computes_with_the_update(unet):
    net, run = unet
    lora, plain = learnt(net), run()
    with applied(net, lora):
        ours = run()
    before = dict(net.attn_processors)
    for processor in (AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(1)):
        net.set_attn_processor(processor)
        assert_close(run(), plain, atol=2e-6, rtol=0)
        with applied(net, lora):
            assert_close(run(), ours, atol=2e-6, rtol=0)
    net.set_attn_processor(before)
    assert (ours - plain).abs().max() > 1e-2


def test_an_edit_by_words_runs_on_the_update():
    sd = tiny.latent()
    z, path = sd.noise(1, seeded()), sd.path(3)
    edited = p2p.edit(sd, z, "a dog", "a cat", path)
    with applied(sd.unet, Lora.fresh(sd.unet, generator=seeded())):
        assert torch.equal(p2p.edit(sd, z, "a dog", "a cat", path), edited)
    with applied(sd.unet, learnt(sd.unet)):
        source, target = last(p2p.pair(sd, z, "a dog", "a dog", path)).x.chunk(2)
        assert torch.equal(source, target)
        assert (p2p.edit(sd, z, "a dog", "a cat", path) - edited).abs().max() > 1e-3


def test_all_is_put_back_after_an_exception(case):
    net, _ = case
    before = kept(net)
    with pytest.raises(RuntimeError, match="in the middle"), applied(net, learnt(net)):
        assert not as_before(before, net)
        raise RuntimeError("in the middle")
    assert as_before(before, net)


# ---- precision


def test_beside_a_layer_in_float16_the_update_stays_in_float32():
    """Factors that float16 cannot hold, whose product it can; and one rounding of the sum."""
    base, x = nn.Linear(16, 12).half(), torch.randn(40, 16).half()
    f = Factors(1e-9 * torch.randn(2, 16), 1e9 * torch.randn(12, 2), 2)
    y, plain = LoRALinear(base, f)(x), base(x)
    exact = plain.double() + x.double() @ (f.B.double() @ f.A.double()).T
    assert y.dtype == torch.float16 and f.A.dtype == torch.float32
    assert_close(y, exact.half(), atol=0, rtol=2**-10)


def test_a_model_in_float16_is_no_different_at_first_and_is_learnt_on(folders):
    sd = pretrained.load_latent(folders["sd15"], dtype=torch.float16)
    sd.unet.conv_out.weight.mul_(1e-3)  # so that gradients are as small as those of large pictures
    z, before = sd.noise(1, seeded()), kept(sd.unet)
    plain = sd.eps("a cat")(z, 400)
    with applied(sd.unet, Lora.fresh(sd.unet, generator=seeded())):
        assert torch.equal(sd.eps("a cat")(z, 400), plain)
    x = torch.rand(1, 3, 64, 64, generator=seeded()) * 2 - 1
    lora = last(lora_fit.fit(sd, x, "a cat", rank=2, steps=2, generator=seeded())).lora
    assert as_before(before, sd.unet)
    for path, f in lora.layers.items():
        assert f.A.dtype == f.B.dtype == torch.float32
        if not path.startswith("mid_block"):  # 1x1: attention to the one pixel there is
            assert (f.B != 0).double().mean() > 0.99, path


def test_a_network_in_float64_keeps_its_precision(exact):
    lora, z = doubled(learnt(exact.unet)), exact.noise(1, seeded()).double()
    with applied(exact.unet, lora):
        ours = exact.eps("a cat")(z, 400)
    merged = merge(exact.unet, lora)
    assert_close(exact.eps("a cat")(z, 400), ours, atol=1e-12, rtol=1e-12)
    unmerge(exact.unet, merged)


# ---- fitting


@pytest.fixture
def picture():
    return torch.rand(1, 3, 16, 16, generator=seeded(3)) * 2 - 1


def fit(picture, prompt="a dog", **more):
    return lora_fit.fit(tiny.latent(), picture, prompt, **{"generator": seeded()} | more)


def test_a_fit_learns_and_leaves_the_model_as_it_was(picture):
    sd = tiny.latent()
    before, state, records = kept(sd.unet), torch.get_rng_state(), []
    for record in fit(picture, rank=8, steps=24):
        assert as_before(before, sd.unet)
        records.append((record.step, record.steps, record.loss))
    assert [r[:2] for r in records] == [(k, 24) for k in range(1, 25)]
    assert sum(r[2] for r in records[-8:]) < 0.9 * sum(r[2] for r in records[:8])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for part in (sd.unet, sd.vae, *sd.encoders)
               for p in part.parameters())
    assert not any(side.requires_grad for f in record.lora.layers.values() for side in (f.A, f.B))


def test_the_loss_is_of_the_models_own_prediction_at_a_time_a_row(sd):
    """Read off what the U-Net is shown: the noise in it, and what should have come out."""
    x = torch.rand(2, 3, 16, 16, generator=seeded(3)) * 2 - 1
    z, tokens = sd.encode(x), sd.text(["a cat", "a dog"]).tokens
    shown, out = [], []
    hook = sd.unet.register_forward_pre_hook(lambda _, args, kwargs: shown.append((args, kwargs)),
                                             with_kwargs=True)
    with tapped(sd.unet, lambda y: out.append(y.sample.detach())):
        records = list(lora_fit.fit(sd, x, ["a cat", "a dog"], rank=2, steps=2, batch=4,
                                    generator=seeded()))
    hook.remove()
    rows, noises = [0, 1, 0, 1], []
    for record, ((x_t, time), more), y in zip(records, shown, out, strict=True):
        abar = sd.schedule.abar[time + 1].float().view(-1, 1, 1, 1)
        eps = (x_t - abar.sqrt() * z[rows]) / (1 - abar).sqrt()
        v = abar.sqrt() * eps - (1 - abar).sqrt() * z[rows]
        goal = {"eps": eps, "v": v}[sd.prediction]
        assert_close(float((y - goal).square().mean()), record.loss, rtol=1e-4, atol=0)
        assert torch.equal(more["encoder_hidden_states"], tokens[rows])
        assert sorted((time * 4 // sd.schedule.T).tolist()) == [0, 1, 2, 3]
        noises.append(eps)
    eps = torch.cat(noises)
    assert abs(eps.mean()) < 4 * eps.numel()**-0.5
    assert abs(eps.var() - 1) < 4 * (2 / eps.numel())**0.5


def test_a_pass_at_several_times_is_the_predictor_at_each(sd):
    """So what is learnt is what sampling asks: XL's sizes and summary, and the shift of time."""
    text, t = sd.text(["a cat", "a dog"]), torch.tensor([7, 400, 1000])
    x, rows = sd.noise(3, seeded()), torch.tensor([1, 0, 1])
    out = lora_fit._output(sd, x, t, text, rows)
    eps = to_eps(sd.schedule, sd.prediction, out, x, t)
    for i, prompt in enumerate(("a dog", "a cat", "a dog")):
        wanted = sd.eps(prompt)(x[i:i + 1], int(t[i]))
        assert_close(eps[i:i + 1], wanted, atol=1e-5, rtol=1e-4)


def test_the_seed_decides_and_nothing_else(picture):
    a, b, c = (last(fit(picture, rank=2, steps=2, generator=seeded(s))).lora for s in (1, 1, 2))
    with torch.enable_grad():
        d = last(fit(picture, rank=2, steps=2, generator=seeded(1))).lora
    for path, f in a.layers.items():
        assert torch.equal(f.B, b.layers[path].B) and torch.equal(f.B, d.layers[path].B)
        assert not torch.equal(f.B, c.layers[path].B)


def test_a_loss_that_is_not_finite_ends_the_fit(picture):
    with pytest.raises(FloatingPointError, match="loss is .* at step .*: try a smaller lr"):
        last(fit(picture, rank=2, steps=20, lr=1e30))


@pytest.mark.slow
def test_the_shipped_model_draws_a_portrait_it_was_fitted_to():
    from coursekit import portraits
    from coursekit.classroom.metrics import psnr

    sd = pretrained.load_latent("portraits-sd")
    people = portraits.sample(1, seeded(11), **portraits.TRAINING)
    x = portraits.render(people)
    prompt = portraits.caption(people, seeded(1), 3)[0].text
    lora = last(lora_fit.fit(sd, x, prompt, steps=30, generator=seeded())).lora

    def near() -> float:
        z = sd.noise(1, seeded(5))
        drawn = sd.decode(last(ddim(sd.eps(prompt), sd.schedule, z, sd.path(10))).x)
        return float(psnr(drawn.clamp(-1, 1), x))

    plain = near()
    with applied(sd.unet, lora):
        assert near() > plain + 4  # dB, from another noise


# ---- refusals


def net() -> nn.Module:
    return tiny.latent().unet


@pytest.mark.parametrize("rank", [0, 9, -1, 2.0, True, "4"])
def test_a_rank_outside_the_layers_is_refused(rank, picture):
    said = f"rank={rank!r}: accepted is a whole number 1..8, the smaller side of 'down_blocks.0."
    refused(Lora.fresh, said, net=net(), rank=rank)
    refused(fit, said, picture=picture, rank=rank)


@pytest.mark.parametrize("alpha", [0, -1.0, math.nan, math.inf, "4"])
def test_an_alpha_that_is_not_positive_is_refused(alpha):
    refused(Lora.fresh, f"alpha={alpha!r}: accepted is a finite number > 0", net=net(), alpha=alpha)


def test_a_network_without_attention_is_refused():
    said = "net is a Sequential without attention of linear layers: there is nothing to adapt"
    refused(Lora.fresh, said, net=nn.Sequential(nn.Linear(4, 4)))


@pytest.mark.parametrize("scale", [math.nan, math.inf, "1", None])
def test_a_scale_that_is_not_finite_is_refused(scale):
    for use in (lambda **given: applied(**given).__enter__(), merge):
        refused(use, f"scale={scale!r}: accepted is a finite number", net=net(),
                lora=learnt(net()), scale=scale)


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan, "0.5"])
def test_a_share_outside_0_to_1_is_refused(share):
    a = learnt(net())
    refused(mix, f"share={share!r}: accepted is a number in [0, 1]", a=a, b=a, share=share)


def test_a_lora_of_another_architecture_is_refused_by_its_first_place(models, tmp_path):
    file = lora_file.save(tmp_path / lora_file.NAME, learnt(models["sd21"].unet))
    lora, unet = lora_file.load(file), models["sd15"].unet
    first = next(path for path, f in lora.layers.items()
                 if f.shape != tuple(unet.get_submodule(path).weight.shape))
    said = (f"lora updates '{first}' of {lora.layers[first].shape}, this UNet2DConditionModel has "
            f"one of {tuple(unet.get_submodule(first).weight.shape)}: accepted is")
    before = kept(unet)
    refused(merge, said, net=unet, lora=lora)
    refused(lambda **given: applied(**given).__enter__(), said, net=unet, lora=lora)
    first = next(iter(lora.layers))
    refused(merge, f"lora updates '{first}' of {lora.layers[first].shape}, this UNet has no such "
                   "linear layer: accepted is", net=own()[0], lora=lora)
    assert as_before(before, unet)
    refused(mix, "b updates '", a=learnt(unet), b=lora, share=0.5)


def test_factors_that_do_not_multiply_are_refused():
    A, B = torch.zeros(2, 5), torch.zeros(3, 2)
    refused(Factors, "A is (2, 5), B is (2, 3): accepted are (r, k) and", A=A, B=B.T, alpha=1)
    refused(Factors, "A is (0, 5), B is (3, 0): accepted are", A=A[:0], B=B[:, :0], alpha=1)
    refused(Factors, "alpha=nan: accepted is a finite number", A=A, B=B, alpha=math.nan)


def test_a_path_that_is_not_there_is_refused():
    lora = learnt(net())
    refused(lora.delta, "path='to_q': accepted are the", path="to_q")


def test_merging_inside_a_block_and_unmerging_out_of_turn_are_refused():
    net, _ = own()
    a, b = learnt(net), learnt(net, seed=1)
    with applied(net, a):
        refused(merge, "net has a LoRA applied at 'down_blocks.0.", net=net, lora=b)
    first, second = merge(net, a), merge(net, b)
    for network in (net, own()[0]):
        refused(unmerge, "merged: 'down_blocks.0.", net=network, merged=first)
    unmerge(net, second)
    net.half()
    refused(unmerge, "merged: 'down_blocks.0.", net=net, merged=first)
    unmerge(net.float(), first)
    assert all(net.get_submodule(path).weight is W for path, W in first.before.items())


@pytest.mark.parametrize("change, said", [
    (lambda t, _: t.popitem(), "lacks 'unet.a.to_q.lora_"),
    (lambda t, _: t.clear(), "is empty: accepted is a LoRA of a U-Net"),
    (lambda t, _: t.update({"unet.a.to_q.alpha": torch.ones(1)}), "holds 'unet.a.to_q.alpha': "),
    (lambda t, _: t.update({"text_encoder.q.lora_A.weight": torch.ones(1, 2)}),
     "holds 'text_encoder.q.lora_A.weight': accepted are"),
    (lambda t, _: t.update({"unet.a.to_q.lora_A.weight": torch.full((2, 5), math.nan)}),
     "has NaN or infinite values in 'unet.a.to_q.lora_A.weight'"),
    (lambda t, _: t.update({"unet.a.to_q.lora_A.weight": torch.ones(2, 5, 1, 1)}),
     "has no LoRA at 'a.to_q': A is (2, 5, 1, 1), B is (3, 2): accepted are"),
    (lambda _, page: page.update({"unet.use_dora": True}), "says use_dora: accepted is plain LoRA"),
    (lambda _, page: page.update({"unet.use_rslora": True}), "says use_rslora: accepted is plain"),
    (lambda _, page: page.update({"unet.lora_alpha": "much"}),
     "has no LoRA at 'a.to_q': alpha='much': accepted is a finite number"),
    (lambda _, page: page.update({"unet.alpha_pattern": {"(": 1}}), "has no LoRA at 'a.to_q': "),
    (lambda _, page: page.update({"unet.alpha_pattern": [1]}), "has alpha_pattern=[1]: accepted"),
])
def test_a_file_of_another_kind_is_refused(change, said, tmp_path):
    tensors = {"unet.a.to_q.lora_A.weight": torch.ones(2, 5),
               "unet.a.to_q.lora_B.weight": torch.ones(3, 2)}
    page = {"unet.r": 2, "unet.lora_alpha": 4}
    file = tmp_path / "f.safetensors"

    def write() -> None:
        safetensors.torch.save_file(tensors, file, {lora_file.METADATA: json.dumps(page)})

    write()
    assert lora_file.load(file).layers["a.to_q"].alpha == 4
    change(tensors, page)
    write()
    refused(lora_file.load, f"file='{file}' {said}", file=file)


def test_a_damaged_file_and_none_at_all_are_refused(tmp_path):
    file = lora_file.save(tmp_path / "f.safetensors", learnt(net()))
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:100], b"", b"no weights"):
        file.write_bytes(content)
        refused(lora_file.load, f"file='{file}' is damaged or no safetensors file", file=file)
    tensors = {"unet.a.lora_A.weight": torch.ones(1, 1)}
    for page in ("{", "7", "[]"):
        safetensors.torch.save_file(tensors, file, {lora_file.METADATA: page})
        refused(lora_file.load, f"file='{file}' ", file=file)
    refused(lora_file.load, f"file='{tmp_path / 'x'}': there is no such file", file=tmp_path / "x")
    refused(lora_file.load, f"file='{tmp_path}': it is a folder", file=tmp_path)
    refused(lora_file.save, "lora has no layers", file=file, lora=Lora({}))


@pytest.mark.parametrize("change, said", [
    ({"steps": 0}, "steps=0: accepted is a whole number >= 1"),
    ({"batch": 1.0}, "batch=1.0: accepted is a whole number >= 1"),
    ({"lr": 0.0}, "lr=0.0: accepted is a finite number > 0"),
    ({"decay": -1}, "decay=-1: accepted is a finite number >= 0"),
    ({"picture": torch.zeros(3, 16, 16)}, "x has shape (3, 16, 16): accepted is (b, 3, h, w)"),
    ({"picture": torch.zeros(1, 3, 15, 16)}, "size: 15x16 pixels, each side must be a multiple"),
    ({"picture": torch.zeros(1, 3, 16, 16).byte()}, "x is torch.uint8: accepted is a floating"),
    ({"picture": torch.full((1, 3, 16, 16), 255.0)}, "x reaches 255 in magnitude: accepted is"),
    ({"picture": torch.full((1, 3, 16, 16), math.nan)}, "x has 768 values that are NaN"),
    ({"prompt": ["a dog", "a cat"]}, "prompt: 2 sentences for 1 pictures, accepted are"),
    ({"prompt": []}, "prompt holds nothing: accepted are"),
    ({"prompt": "a" * 50}, "prompt='aaa"),
])
def test_a_fit_refuses_before_it_begins(change, said, picture):
    refused(fit, said, **{"picture": picture} | change)
