"""Maps of words: what diffusers' own attention gives, joined by hand, and no change to samples."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.testing import assert_close

from coursekit import pretrained
from coursekit.diffusion.sample import ddim, last
from coursekit.nets.wordmaps import END, START, joined, watched

PROMPT = "a photo of a HORSE, a"
TOKENS = {"a": [1], "photo": [2], "of": [3], "a again": [4], "HORSE,": [5, 6, 7, 8, 9, 10],
          "a at last": [11]}
SIZES = {"sd15": (16, 8), "sd21": (16, 8), "sdxl": (8,)}


@pytest.fixture
def sd15(models):
    return models["sd15"]


@torch.no_grad()
def theirs(sd, x, t, w, size, monkeypatch):
    """Word maps by diffusers' `get_attention_scores`, one token after another."""
    seen, ask = [], Attention.get_attention_scores
    with monkeypatch.context() as patch:
        def keep(attn, query, key, mask=None):
            found = ask(attn, query, key, mask)
            if attn.is_cross_attention and found.shape[1] == size[0] * size[1]:
                rows = 2 * len(x) if w != 1 else len(x)
                seen.append(found.unflatten(0, (rows, attn.heads))[-len(x):].mean(1))  # b n l
            return found

        patch.setattr(Attention, "get_attention_scores", keep)
        before = {m: m.get_processor() for m in sd.unet.modules() if isinstance(m, Attention)}
        for m in before:
            m.set_processor(AttnProcessor())
        sd.eps(PROMPT, w=w)(x, t)
        for m, processor in before.items():
            m.set_processor(processor)
    tokens = torch.stack(seen).mean(0).unflatten(1, size)  # b h w l
    words = [sum(tokens[..., i] for i in at) for at in TOKENS.values()]
    rest = sum(tokens[..., i] for i in range(12, sd.context))
    return torch.stack([tokens[..., 0], *words, rest], 1)


@torch.no_grad()
@pytest.mark.parametrize("w", [1.0, 6.0])
def test_maps_are_those_of_diffusers_own_attention(sd, topology, w, generator, monkeypatch):
    """A picture that is not square, two of them, with and without guidance."""
    x = sd.noise(2, generator, (16 * sd.factor, 24 * sd.factor))
    eps, maps = watched(sd, PROMPT, w=w, sizes=SIZES[topology])
    eps(x, 700)
    for n in SIZES[topology]:
        size = (n, n * 24 // 16)
        found = maps.at(700, n)
        assert found.shape == (2, 8, *size)
        assert_close(found, theirs(sd, x, 700, w, size, monkeypatch), rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_columns_of_a_pixel_sum_to_one(sd, topology, generator):
    eps, maps = watched(sd, PROMPT, w=3.0, sizes=SIZES[topology])
    last(ddim(eps, sd.schedule, sd.noise(1, generator), sd.path(3)))
    assert list(maps.steps) == sd.path(3)[:-1]  # the sampler's own times
    for t in maps.steps:
        for n in SIZES[topology]:
            assert_close(maps.at(t, n).sum(1), torch.ones(1, n, n), rtol=0, atol=1e-5)
            assert maps.at(t, n).min() >= 0
    mean = sum(maps.at(t, 8) for t in maps.steps) / len(maps.steps)
    assert_close(maps.mean(8), mean)


@torch.no_grad()
@pytest.mark.parametrize("w", [1.0, 5.0])
def test_the_samples_are_those_of_a_sampler_that_nobody_watches(sd, topology, w, generator):
    noise, path = sd.noise(2, generator), sd.path(4)
    plain = last(ddim(sd.eps(PROMPT, "a dog", w), sd.schedule, noise, path)).x
    eps, _ = watched(sd, PROMPT, "a dog", w, sizes=SIZES[topology])
    assert_close(last(ddim(eps, sd.schedule, noise, path)).x, plain, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_maps_are_the_prompts_and_not_the_negatives(sd15, generator):
    x = sd15.noise(1, generator)
    found = []
    for negative, w in (("", 1.0), ("", 4.0), ("a dog of a dog", -2.0)):
        eps, maps = watched(sd15, PROMPT, negative, w)
        eps(x, 300)
        found.append(maps.at(300, 16))
    for other in found[1:]:
        assert_close(other, found[0], rtol=0, atol=2e-6)


def test_a_word_has_all_its_tokens_and_one_said_twice_two_columns(sd15):
    columns, join = joined(sd15, PROMPT)
    assert columns == (START, "a", "photo", "of", "a", "HORSE,", "a", END)
    for column, tokens in zip(join.T[1:-1], TOKENS.values(), strict=True):
        assert column.nonzero().flatten().tolist() == tokens
    assert join[0].tolist() == [1, *[0] * 7]
    assert (join[12:, -1] == 1).all() and (join.sum(1) == 1).all()


@torch.no_grad()
def test_two_words_alike_are_told_apart(sd15, generator):
    """The same letters at another place are another vector, so another map."""
    eps, maps = watched(sd15, "a dog of a dog", sizes=(16,))
    eps(sd15.noise(1, generator), 500)
    dogs = [i for i, word in enumerate(maps.columns) if word == "dog"]
    first, second = maps.at(500, 16)[0, dogs]
    assert len(dogs) == 2 and (first - second).abs().max() > 1e-5


@torch.no_grad()
def test_a_step_is_its_time_however_often_eps_is_called(sd15, generator):
    x, z = sd15.noise(2, generator).split(1)
    eps, maps = watched(sd15, "a dog", sizes=(8,))
    for state, t in ((z, 500), (x, 900), (x, 500)):
        eps(state, t)
    again, alone = watched(sd15, "a dog", sizes=(8,))
    again(x, 500)
    assert set(maps.steps) == {500, 900}
    assert_close(maps.at(500, 8), alone.at(500, 8), rtol=0, atol=0)


def test_the_network_is_as_it_was_also_after_an_exception(sd15, generator):
    def state():
        return [(name, id(getattr(m, "processor", None)), list(m._forward_hooks),
                 list(m._forward_pre_hooks)) for name, m in sd15.unet.named_modules()]

    def fail(*_):
        raise RuntimeError("in the middle")

    before, x = state(), sd15.noise(1, generator)
    eps, maps = watched(sd15, PROMPT)
    eps(x, 400)
    assert state() == before and list(maps.steps) == [400]
    hook = sd15.unet.up_blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        eps(x, 200)
    hook.remove()
    assert state() == before and list(maps.steps) == [400]


def test_only_what_is_asked_for_is_kept(sd15, generator):
    """A record of a few thousand numbers, without the graph that a gradient would need."""
    free = sd15.text("")
    free.tokens.requires_grad_()
    eps, maps = watched(sd15, PROMPT, free, 3.0, sizes=(8, 8))
    eps(sd15.noise(1, generator), 400).sum().backward()
    assert free.tokens.grad.abs().max() > 0
    (kept,) = maps.steps[400].values()
    assert kept.shape == (1, 8, 8, 8) and not kept.requires_grad
    assert kept.untyped_storage().nbytes() == 4 * kept.numel()


@torch.no_grad()
def test_half_precision_sums_to_one_too(folders, generator):
    sd = pretrained.load_latent(folders["sd15"], dtype=torch.bfloat16)
    eps, maps = watched(sd, PROMPT, w=2.0)
    eps(sd.noise(1, generator), 500)
    assert maps.at(500, 16).dtype == torch.float32
    assert_close(maps.at(500, 16).sum(1), torch.ones(1, 16, 16), rtol=0, atol=1e-5)


@pytest.mark.parametrize("call, words", [
    (lambda sd: watched(sd, "  "), "prompt='  ': accepted is one sentence"),
    (lambda sd: watched(sd, ["a dog"]), "prompt=['a dog']: accepted is one sentence"),
    (lambda sd: watched(sd, "a dog " * 30), "prompt='a dog"),
    (lambda sd: watched(sd, "a dog", sizes=16), "sizes=16: accepted are heights"),
    (lambda sd: watched(sd, "a dog", sizes=()), "sizes=(): accepted are heights"),
    (lambda sd: watched(sd, "a dog", sizes=(32,))[0](torch.zeros(1, 4, 16, 16), 5),
     "sizes: no cross-attention has the height 32, accepted are 16, 8, 4, 2"),
    (lambda sd: watched(sd, "a dog")[1].at(5, 16), "t=5 was not watched: accepted are none"),
    (lambda sd: watched(sd, "a dog")[1].mean(16), "no step was watched"),
])  # fmt: skip
def test_a_wrong_argument_is_named(sd15, call, words):
    with pytest.raises(ValueError) as refusal:
        call(sd15)
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)
