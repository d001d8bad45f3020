"""The U-Net against diffusers' parts, and its slots against doing without them."""

import json

import pytest
import torch
from diffusers.models.attention_processor import Attention as TheirAttention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D

from coursekit.nets.unet import AdaGN, Attention, ResBlock, UNet, time_embedding

SMALL = dict(channels=(8, 16, 24), encoder=(1, 2, 1), decoder=(2, 2, 1), attention=(2,),
             head_dim=8, groups=4, unshuffle=2)


def shake(net):
    """Adds noise to every weight: fresh networks hold zeros, which would hide a fault."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def small(**more):
    return shake(UNet(**{**SMALL, **more}))


@pytest.fixture
def x():
    return torch.randn(3, 3, 16, 24)


T = torch.tensor([1, 500, 1000])


# ---- against a trusted library --------------------------------------------------------------


def test_time_embedding_is_diffusers():
    theirs = get_timestep_embedding(T, 48, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(time_embedding(T, 48), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("context_dim", [None, 12])
def test_attention_is_diffusers(context_dim):
    ours = Attention(32, 4, context_dim)
    theirs = TheirAttention(32, cross_attention_dim=context_dim, heads=4, dim_head=8)
    theirs.load_state_dict(ours.state_dict())  # the same names: the surface is the same
    x, context = torch.randn(2, 10, 32), None if context_dim is None else torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x, context), theirs(x, context), rtol=0, atol=1e-6)
    for name in ("heads", "scale", "is_cross_attention"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_res_block_is_diffusers():
    ours = shake(ResBlock(16, groups=4, time_dim=20, code_dim=None, dropout=0.0))
    theirs = ResnetBlock2D(in_channels=16, temb_channels=20, groups=4, eps=1e-5,
                           time_embedding_norm="scale_shift")
    names = {"norm2.norm": "norm2", "norm2.time": "time_emb_proj"}
    state = {}
    for key, value in ours.state_dict().items():
        part, _, kind = key.rpartition(".")
        state[f"{names.get(part, part)}.{kind}"] = value
    theirs.load_state_dict(state)
    x, emb = torch.randn(3, 16, 6, 8), torch.randn(3, 20)
    torch.testing.assert_close(ours(x, torch.nn.functional.silu(emb), None), theirs(x, emb),
                               rtol=1e-5, atol=1e-5)


def test_adagn_is_its_formula_with_its_gradients():
    """code_scale (t_scale GN(x) + t_shift), written out, against the folded group norm."""
    layer = shake(AdaGN(8, groups=2, time_dim=5, code_dim=7)).double()
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True)
              for s in ((3, 8, 4, 6), (3, 5), (3, 7))]

    def written_out(x, emb, code):
        t_scale, t_shift = layer.time(emb)[:, :, None, None].chunk(2, 1)
        k = 1 + layer.code(torch.nn.functional.silu(code))[:, :, None, None]
        return k * (layer.norm(x) * (1 + t_scale) + t_shift)

    y, expected = layer(*inputs), written_out(*inputs)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    wanted = [*inputs, *layer.parameters()]
    weight = torch.randn_like(y)
    for ours, theirs in zip(torch.autograd.grad(y, wanted, weight, retain_graph=True),
                            torch.autograd.grad(expected, wanted, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


# ---- the whole ------------------------------------------------------------------------------


def test_the_shipped_size_is_about_four_million_and_starts_from_zero():
    net = UNet()
    assert 3.5e6 < sum(p.numel() for p in net.parameters()) < 4.8e6
    y = net(torch.randn(1, 3, 64, 64), 7)
    torch.testing.assert_close(y, torch.zeros(1, 3, 64, 64), rtol=0, atol=0)


def test_config_rebuilds_the_network_through_json(x):
    net = small(context_dim=None, code_dim=6)
    again = UNet(**json.loads(json.dumps(net.config)))
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again.eval()(x, T), net(x, T), rtol=0, atol=0)


def test_images_of_a_batch_do_not_see_each_other(x):
    net = small(code_dim=6)
    code = torch.randn(3, 6)
    one_by_one = torch.cat([net(x[i:i + 1], T[i:i + 1], code=code[i:i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, T, code=code), one_by_one, rtol=0, atol=1e-5)


def test_every_weight_learns(x):
    net = small(context_dim=12, code_dim=6).train()
    net(x, T, context=torch.randn(3, 5, 12), code=torch.randn(3, 6)).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_time_counts_and_one_int_stands_for_all(x):
    net = small()
    assert (net(x, T) - net(x, T.flip(0))).abs().max() > 1e-3
    torch.testing.assert_close(net(x, 500), net(x, torch.full((3,), 500)), rtol=0, atol=0)


def test_channels_last_is_the_same_picture(x):
    net = small()
    plain = net(x, T)
    net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last), T), plain, rtol=0,
                               atol=1e-5)


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_unshuffle_keeps_the_shape_and_bfloat16_runs(unshuffle):
    net = small(unshuffle=unshuffle)
    x = torch.randn(1, 3, 32, 16)
    y = net(x, 3)
    assert y.shape == x.shape
    rough = net.bfloat16()(x.bfloat16(), 3)
    torch.testing.assert_close(rough.float(), y, rtol=0, atol=0.1 * float(y.detach().abs().max()))


# ---- slots ----------------------------------------------------------------------------------


def test_null_conditions_change_nothing(x):
    """A fresh code is a scale of 1, a zero map is no residual: both to the last bit."""
    plain, coded = UNet(**SMALL), UNet(**SMALL, code_dim=6)
    coded.load_state_dict(plain.state_dict(), strict=False)
    shake(plain)
    coded.load_state_dict(plain.state_dict(), strict=False)
    expected = plain(x, T)
    code = torch.randn(3, 6)
    for given in (None, code, [code, None, None], [None, None, None]):
        torch.testing.assert_close(coded(x, T, code=given), expected, rtol=0, atol=0)
    torch.testing.assert_close(plain(x, T, residuals=[0.0 * m for m in maps(plain, x)]), expected,
                               rtol=0, atol=0)


def test_a_code_for_all_levels_is_that_code_at_each(x):
    net, code = small(code_dim=6), torch.randn(3, 6)
    torch.testing.assert_close(net(x, T, code=[code] * 3), net(x, T, code=code), rtol=0, atol=0)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_s_code_reaches_that_level_and_no_other(x, level):
    net = small(code_dim=6)
    codes = [torch.randn(3, 6, requires_grad=True) for _ in range(3)]
    net(x, T, code=[z if i == level else z.detach() for i, z in enumerate(codes)]
        ).square().sum().backward()
    assert [z.grad is not None for z in codes] == [i == level for i in range(3)]
    touched = []
    for name, m in net.named_modules():
        if isinstance(m, AdaGN):
            m.register_forward_hook(
                lambda m, args, y, name=name: touched.append(name) if args[2] is codes[level]
                else None)
    net(x, T, code=[z if i == level else None for i, z in enumerate(codes)])
    width = SMALL["channels"][level]
    wanted = [n for n, m in net.named_modules() if isinstance(m, AdaGN)
              and m.norm.num_channels == width]
    assert sorted(touched) == sorted(wanted)


def maps(net, x):
    """The skips in encoder order, then the middle, as a ControlNet would produce them."""
    found, hooks = [], []
    stages = [s for level in net.down_blocks for s in level] + [net.mid_block]
    for m in stages:
        hooks.append(m.register_forward_hook(lambda m, args, y: found.append(y.detach())))
    net(x, T)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("which", range(5))
def test_each_residual_reaches_the_output(x, which):
    net = small()
    residuals = [torch.zeros_like(m) for m in maps(net, x)]
    plain = net(x, T, residuals=residuals)
    residuals[which] = torch.ones_like(residuals[which])
    assert (net(x, T, residuals=residuals) - plain).abs().max() > 1e-4


def test_text_counts_and_its_order_does_not(x):
    """Cross-attention has no positions: a permuted text is the same text."""
    net, text = small(context_dim=12), torch.randn(3, 5, 12)
    y = net(x, T, context=text)
    torch.testing.assert_close(net(x, T, context=text.flip(1)), y, rtol=0, atol=1e-5)
    assert (net(x, T, context=text + 1) - y).abs().max() > 1e-4


# ---- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("options, inputs, words", [
    ({}, {"x": torch.zeros(1, 1, 16, 16)}, r"x has shape \(1, 1, 16, 16\), expected \(b, 3"),
    ({}, {"x": torch.zeros(1, 3, 16, 20)}, "x is 16x20, each side must be .* multiple of 8"),
    ({}, {"t": torch.ones(2)}, r"t has shape \(2,\), expected an int or \(1,\)"),
    ({}, {"context": torch.zeros(1, 5, 12)}, "context is given, but context_dim is None"),
    ({"context_dim": 12}, {}, "context is missing"),
    ({"context_dim": 12}, {"context": torch.zeros(1, 5, 8)}, r"context has shape \(1, 5, 8\)"),
    ({}, {"code": torch.zeros(1, 6)}, "code has shape .* code_dim = None"),
    ({"code_dim": 6}, {"code": torch.zeros(1, 5)}, r"code has shape \(1, 5\)"),
    ({"code_dim": 6}, {"code": [torch.zeros(1, 6)]}, "code has 1 entries, .* the 3 levels"),
    ({}, {"residuals": []}, r"residuals has 0 maps, expected 4 \(skips\) \+ 1"),
])
def test_what_does_not_fit_is_named(options, inputs, words):
    net = UNet(**{**SMALL, **options})
    with pytest.raises(ValueError, match=words):
        net(**{"x": torch.zeros(1, 3, 16, 16), "t": 1, **inputs})


@pytest.mark.parametrize("options, words", [
    ({"encoder": (1, 1)}, r"encoder=\(1, 1\).* one number for each of the 3 levels"),
    ({"decoder": (1, 1, 1)}, r"decoder=\(1, 1, 1\).* at least encoder"),
    ({"groups": 5}, "channels=.* multiples of groups=5"),
    ({"attention": (3,)}, r"attention=\(3,\).* 0..2"),
    ({"unshuffle": 0}, "unshuffle=0"),
    ({"channels": (8, 16, 28)}, "dim=28: expected a multiple of heads=3"),
])
def test_sizes_that_do_not_fit_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        UNet(**{**SMALL, **options})
