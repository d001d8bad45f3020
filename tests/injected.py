"""What tests of injecting methods share: a short path, its states, a network's seam, attention."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coursekit.diffusion.sample import State, ddim
from coursekit.nets.control import tapped
from coursekit.nets.latent import Latent

SOURCE, TARGET = "a dog", "a photo of a cat"


@pytest.fixture(scope="module")
def sd15(doubles):
    return doubles["sd15"]


@pytest.fixture(scope="module")
def source(sd15):
    """A path, and the states of a source on it."""
    path = sd15.path(2)
    return path, drawn(sd15, SOURCE, noise(sd15, torch.Generator().manual_seed(0)), path)


def noise(sd: Latent, generator: torch.Generator, b: int = 1, h: int = 8, w: int = 16) -> Tensor:
    """Latents (b, 4, h, w) that are not square, in float64."""
    return sd.noise(b, generator, (h * sd.factor, w * sd.factor)).double()


@torch.no_grad()
def drawn(sd: Latent, prompt: str, z: Tensor, path: list[int], negative: str = "",
          w: float = 1.0) -> list[State]:
    """All states of plain sampling."""
    return list(ddim(sd.eps(prompt, negative, w), sd.schedule, z, path))


def seam(net: nn.Module) -> list:
    """What a control may touch, by identity, and what it must not: a module's own forward."""
    return [(name, id(getattr(m, "processor", None)), list(m._forward_hooks),
             list(m._forward_pre_hooks), "forward" in vars(m)) for name, m in net.named_modules()]


def fused(sd: Latent, monkeypatch) -> list[int]:
    """Grows by the pixels that ask, a call of the fused kernel in the U-Net (a text has others)."""
    calls, kernel = [], F.scaled_dot_product_attention

    def counted(q, *rest, **more):
        if q.shape[2] != sd.context:
            calls.append(q.shape[2])
        return kernel(q, *rest, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    return calls


def interrupted(sd: Latent, block: int, run) -> list[list]:
    """The seams met in a run that fails in its third pass: to trace, the source, the edit."""
    during = []

    def fail(_):
        during.append(seam(sd.unet))
        if len(during) == 3:
            raise RuntimeError("in the middle")

    with tapped(sd.unet.up_blocks[block], fail):
        with pytest.raises(RuntimeError, match="in the middle"):
            run()
    return during


class Batched:
    """A processor for rows that look at each other, as the official codes write it: no seam of
    ours. mix(q, k, v) -> (q, k, v), each (rows, heads, n, d)."""

    def __init__(self, mix=lambda q, k, v: (q, k, v)):
        self.mix = mix

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None,
                 temb=None):
        y = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (layer(x).unflatten(2, (attn.heads, -1)).transpose(1, 2) for layer, x in
                   ((attn.to_q, hidden_states), (attn.to_k, y), (attn.to_v, y)))
        out = F.scaled_dot_product_attention(*self.mix(q, k, v), scale=attn.scale)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def refused(edit, said: str, /, **given) -> None:
    """The edit says what is wrong with its arguments, in one line that begins with these words."""
    with pytest.raises((TypeError, ValueError)) as refusal:
        edit(**given)
    assert str(refusal.value).startswith(said) and "\n" not in str(refusal.value)
