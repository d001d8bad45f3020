"""The seam: exact where it changes nothing, and gone when its block ends; on three networks."""

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import AttnProcessor

from coursekit.nets.control import Site, controlled, tapped, trace
from coursekit.nets.unet import UNet


def own():
    net = UNet(channels=(16, 32), encoder=(1, 2), decoder=(2, 2), attention=(0, 1), head_dim=8,
               groups=4, unshuffle=2, context_dim=12)
    return net, dict(x=torch.randn(2, 3, 16, 24), t=torch.tensor([3, 700]),
                     context=torch.randn(2, 5, 12))


def unconditional():
    net = UNet2DModel(sample_size=16, block_out_channels=(16, 32), layers_per_block=1,
                      norm_num_groups=4, attention_head_dim=8,
                      down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
                      up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"))
    return net, dict(sample=torch.randn(2, 3, 16, 24), timestep=torch.tensor([3, 700]))


def conditional():
    net = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=4, cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))
    return net, dict(sample=torch.randn(2, 4, 16, 24), timestep=torch.tensor([3, 700]),
                     encoder_hidden_states=torch.randn(2, 5, 12))


@pytest.fixture(params=[own, unconditional, conditional], ids=lambda f: f.__name__)
def case(request):
    """A network whose every weight counts (fresh ones hold zeros), and its inputs."""
    net, inputs = request.param()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return net.eval(), inputs


@torch.no_grad()
def output(case):
    net, inputs = case
    y = net(**inputs)
    return y if isinstance(y, torch.Tensor) else y.sample


def seam(net):
    """What a control may touch: processors and hooks, by identity."""
    return [(name, id(getattr(m, "processor", None)), list(m._forward_hooks),
             list(m._forward_pre_hooks)) for name, m in net.named_modules()]


def same_qkv(site, q, k, v):
    return q, k, v


def same_probs(site, A):
    return A


def test_the_identity_is_exact_while_attention_stays_fused(case):
    plain = output(case)
    for verbs in ({}, {"qkv": same_qkv}):
        with controlled(case[0], **verbs):
            torch.testing.assert_close(output(case), plain, rtol=0, atol=0)


def test_the_identity_through_probs_agrees_with_the_fused_kernel(case):
    plain = output(case)
    with controlled(case[0], probs=same_probs):
        torch.testing.assert_close(output(case), plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize("make", [unconditional, conditional])
def test_explicit_attention_agrees_with_diffusers_own(make):
    """Not with our fused branch: with the processor of the library that forms probabilities."""
    net, inputs = make()
    for m in net.modules():
        if hasattr(m, "set_processor"):
            m.set_processor(AttnProcessor())
    theirs = output((net, inputs))
    with controlled(net, probs=same_probs):
        torch.testing.assert_close(output((net, inputs)), theirs, rtol=0, atol=2e-6)


def test_attention_stays_fused_where_probs_is_not_asked(case, monkeypatch):
    plain, asked, fused = output(case), [], []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def counted(q, k, v, **more):
        fused.append(q.shape)
        return kernel(q, k, v, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    with controlled(case[0], probs=lambda site, A: asked.append(site) or A,
                    where=lambda site: site.index == 1) as sites:
        torch.testing.assert_close(output(case), plain, atol=2e-6, rtol=0)
    assert asked == [sites[1]] and len(fused) == len(sites) - 1
    with controlled(case[0], probs=lambda site, A: 0 * A, where=lambda site: False):
        assert torch.equal(output(case), plain)


def test_probabilities_are_probabilities_and_an_edit_of_them_counts(case):
    seen = []

    def first_token_only(site, A):
        seen.append((site, A.shape))
        torch.testing.assert_close(A.sum(-1), torch.ones(A.shape[:-1]))
        return torch.nn.functional.one_hot(torch.zeros(A.shape[:-1], dtype=torch.long),
                                           A.shape[-1]).to(A)

    plain = output(case)
    with controlled(case[0], probs=first_token_only):
        edited = output(case)
    assert (edited - plain).abs().max() > 1e-3
    for site, (b, _, n, tokens) in seen:
        assert b == 2 and site.size[0] * site.size[1] == n
        assert tokens == (5 if site.is_cross else n)


def test_one_value_everywhere_makes_probabilities_irrelevant(case):
    """Rows sum to one: if all values of a head are equal, any probabilities give the same."""
    def flat(site, q, k, v):
        return q, k, v.mean(2, keepdim=True).expand_as(v)

    with controlled(case[0], qkv=flat):
        expected = output(case)
    with controlled(case[0], qkv=flat, probs=lambda site, A: A.flip(-1)):
        torch.testing.assert_close(output(case), expected, rtol=0, atol=1e-5)


def test_keys_may_be_concatenated(case):
    """Every token twice leaves every softmax average as it was."""
    def twice(site, q, k, v):
        return q, torch.cat([k, k], 2), torch.cat([v, v], 2)

    plain = output(case)
    with controlled(case[0], qkv=twice):
        torch.testing.assert_close(output(case), plain, rtol=0, atol=1e-5)


def test_sites_are_in_order_of_execution(case):
    net, inputs = case
    ran, hooks = [], []
    for name, m in net.named_modules():
        if hasattr(m, "set_processor"):
            hooks.append(m.register_forward_hook(lambda *_, name=name: ran.append(name)))
    sites = trace(net, **inputs)
    for hook in hooks:
        hook.remove()
    assert [s.name for s in sites] == ran
    assert [s.index for s in sites] == list(range(len(ran)))
    places = [s.place for s in sites]
    assert places == sorted(places, key=["down", "mid", "up"].index) and len(set(places)) == 3
    by_place = {s.place: s.size for s in sites}
    assert by_place["mid"][1] * 2 == by_place["mid"][0] * 3  # 16 x 24 all the way down
    if isinstance(net, UNet2DConditionModel):
        assert [s.is_cross for s in sites] == [".attn2" in s.name for s in sites]


def test_the_site_follows_another_picture_size(case):
    net, inputs = case
    with controlled(net) as sites:
        output(case)
        before = [s.size for s in sites]
        key = "x" if "x" in inputs else "sample"
        inputs[key] = torch.cat([inputs[key]] * 2, dim=2)
        output(case)
    assert [s.size for s in sites] == [(2 * h, w) for h, w in before]


def test_everything_is_restored_after_the_block_and_after_an_exception(case):
    net, plain, before = case[0], output(case), seam(case[0])
    with controlled(net, qkv=same_qkv, probs=same_probs):
        assert seam(net) != before
        output(case)
    assert seam(net) == before

    def fails(site, A):
        raise RuntimeError("in the middle of a forward pass")

    with pytest.raises(RuntimeError, match="in the middle"):
        with tapped(net.mid_block, lambda h: None), controlled(net, probs=fails):
            output(case)
    assert seam(net) == before
    torch.testing.assert_close(output(case), plain, rtol=0, atol=0)


def test_controls_stack_outer_first_and_unwind_one_by_one(case):
    net, before = case[0], seam(case[0])
    calls = []

    def note(word):
        return lambda site, A: calls.append((word, site.name)) or A

    with controlled(net, probs=note("outer")):
        middle = seam(net)
        with controlled(net, qkv=same_qkv):
            with controlled(net, probs=note("inner")) as sites:
                output(case)
        assert calls == [(word, s.name) for s in sites for word in ("outer", "inner")]
        assert seam(net) == middle
    assert seam(net) == before


def test_a_nested_control_sees_what_the_outer_one_left(case):
    def halve(site, A):
        return A / 2

    with controlled(case[0], probs=lambda site, A: A / 4):
        quarter = output(case)
    with controlled(case[0], probs=halve), controlled(case[0], probs=halve):
        torch.testing.assert_close(output(case), quarter, rtol=0, atol=0)


def test_gradients_flow_through_a_verb(case):
    net, inputs = case
    scale = torch.ones((), requires_grad=True)
    with controlled(net, probs=lambda site, A: A * scale):
        y = net(**inputs)
    y = y if isinstance(y, torch.Tensor) else y.sample
    y.square().mean().backward()
    assert scale.grad.abs() > 0


def test_tapped_reads_and_replaces(case):
    net, plain, seen = case[0], output(case), []
    with tapped(net.mid_block, seen.append):
        torch.testing.assert_close(output(case), plain, rtol=0, atol=0)
    with tapped(net.mid_block, lambda h: h + 1):
        assert (output(case) - plain).abs().max() > 1e-4
    with tapped(net.mid_block, lambda h: h + 1), tapped(net.mid_block, lambda h: h - 1):
        torch.testing.assert_close(output(case), plain, rtol=0, atol=1e-5)
    assert [h.ndim for h in seen] == [4]
    torch.testing.assert_close(output(case), plain, rtol=0, atol=0)


# ---- refusals -------------------------------------------------------------------------------


def test_masks_are_refused():
    net, inputs = conditional()
    inputs["encoder_attention_mask"] = torch.ones(2, 5)
    with controlled(net), pytest.raises(ValueError, match=r"attention_mask .*'down_blocks\.0\."):
        net(**inputs)


@pytest.mark.parametrize("verbs, words", [
    ({"qkv": lambda s, q, k, v: (q[:1], k, v)}, "qkv at 'down_blocks"),
    ({"qkv": lambda s, q, k, v: (q, k[:, :, :1], v)}, "k, v of one shape"),
    ({"probs": lambda s, A: A[..., :1]}, r"probs at .* expected \(2, "),
])
def test_a_verb_that_breaks_shapes_is_named(case, verbs, words):
    with controlled(case[0], **verbs), pytest.raises(ValueError, match=words):
        output(case)


def test_networks_that_cannot_be_controlled_are_refused():
    with pytest.raises(ValueError, match="Linear without attention"), controlled(
            torch.nn.Linear(2, 2)):
        pass
    net, _ = conditional()
    before = seam(net)
    net.mid_block.attentions[0].transformer_blocks[0].attn1.set_processor(lambda *a: None)
    after = seam(net)
    with pytest.raises(ValueError, match="mid_block.*has the processor function"), controlled(net):
        pass
    assert seam(net) == after != before


def test_a_site_says_what_it_is():
    net, inputs = own()
    assert trace(net, **inputs)[0] == Site("down_blocks.0.0.attention.attn1", "down", 0, False,
                                           (8, 12))
