"""Muon is torch's own, in every memory format, and AdamW does what it leaves."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from coursekit.recipes._muon import Muon

LR, DECAY = 1e-2, 0.1


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 4, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def learn(model, optimiser, steps=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(5, 3, 8, 8, generator=generator)
        x = x.contiguous(memory_format=torch.channels_last)
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_updates_are_torchs(layout):
    """A model of plain matrices, which torch's Muon takes, learns what our kernels do."""
    ours = net().to(memory_format=layout)
    theirs = net()
    theirs.load_state_dict(ours.state_dict())
    kernels = [p for p in theirs.parameters() if p.ndim > 1]
    flat = [nn.Parameter(p.detach().flatten(1).clone()) for p in kernels]
    muon = torch.optim.Muon(flat, lr=LR, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([p for p in theirs.parameters() if p.ndim == 1], lr=LR,
                              betas=(0.9, 0.99), weight_decay=DECAY)

    class Both:
        def zero_grad(self):
            theirs.zero_grad()

        def step(self):
            for p, matrix in zip(kernels, flat, strict=True):
                matrix.grad = p.grad.flatten(1)
            muon.step()
            adamw.step()
            with torch.no_grad():
                for p, matrix in zip(kernels, flat, strict=True):
                    p.copy_(matrix.view_as(p))

    wanted = learn(theirs, Both())
    # bfloat16 inside: the order of the columns rounds otherwise
    assert_close(learn(ours, Muon(ours, LR, DECAY)), wanted, atol=2e-4, rtol=0)
    assert not torch.equal(wanted[0], net()[0].weight)


def test_an_update_is_nearly_orthogonal_and_as_large_as_adamws():
    layer = nn.Linear(40, 20)
    before = layer.weight.detach().clone()
    optimiser = Muon(layer, LR, 0.0)
    layer(torch.randn(64, 40)).square().mean().backward()
    optimiser.step()
    update = (layer.weight.detach() - before) / LR
    values = torch.linalg.svdvals(update) / (0.2 * 40**0.5)
    assert 0.6 < values.min() and values.max() < 1.3  # of five steps of Newton and Schulz
    assert update.square().mean().sqrt() == pytest.approx(0.2, rel=0.25)


def test_frozen_weights_stay_and_embeddings_and_wide_layers_are_adamws():
    model = nn.ModuleDict({"words": nn.Embedding(7, 3), "still": nn.Linear(3, 3),
                           "layer": nn.Linear(3, 4), "wide": nn.Linear(513, 513)})
    model.free = nn.Parameter(torch.ones(2, 2))
    model["still"].requires_grad_(False)
    optimiser = Muon(model, LR, DECAY)
    assert [p is model["layer"].weight for p, _ in optimiser.pairs] == [True]
    rest = {id(p) for p in optimiser.parts[1].param_groups[0]["params"]}
    assert rest == {id(p) for p in (model["words"].weight, model["layer"].bias, model.free,
                                    *model["wide"].parameters())}


def test_a_state_that_was_saved_goes_on():
    whole = net()
    start = {k: v.clone() for k, v in whole.state_dict().items()}
    wanted = learn(whole, Muon(whole, LR, DECAY))

    class Interrupted(Muon):
        def step(self):
            super().step()
            again = Muon(model, LR, DECAY)
            again.load_state_dict(self.state_dict())
            self.pairs, self.parts = again.pairs, again.parts

    model = net()
    model.load_state_dict(start)
    assert_close(learn(model, Interrupted(model, LR, DECAY)), wanted, atol=0, rtol=0)


def test_both_follow_one_learning_rate():
    model = net()
    optimiser = Muon(model, LR, 0.0)
    before = [p.detach().clone() for p in model.parameters()]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    assert_close(learn(model, optimiser), before, atol=0, rtol=0)
