"""What every file in `edits/` promises, on a network of ours and on a diffusers one.

A method may ask for the arguments in `World.vocabulary`; whatever else has no default comes from
its `tiny()`. So a new method is one new file, and this test finds it.
"""

import importlib
import inspect
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from coursekit import edits
from coursekit.diffusion.predict import Eps, from_diffusers, from_network
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.diffusion.schedule import Schedule
from coursekit.edits import sdedit
from coursekit.nets.latent import Latent
from coursekit.nets.unet import UNet

NAMES = sorted(p.stem for p in Path(edits.__file__).parent.glob("[!_]*.py"))
T = 1000
SCHEDULE = Schedule.linear(T)


@dataclass(frozen=True)
class World:
    """A network, and one picture to edit with it."""

    name: str
    net: nn.Module
    image: Tensor

    @property
    def eps(self) -> Eps:
        if self.name == "ours":
            return from_network(self.net, SCHEDULE, "v")
        text = torch.zeros(len(self.image), 3, 8, dtype=self.image.dtype, device=self.image.device)
        return from_diffusers(self.net, SCHEDULE, "v", encoder_hidden_states=text)

    def vocabulary(self, seed: int = 0) -> dict:
        return {"eps": self.eps, "schedule": SCHEDULE, "image": self.image, "guide": self.image,
                "net": self.net, "path": SCHEDULE.trailing(4), "t0": T // 2,
                "generator": torch.Generator().manual_seed(seed)}

    def to(self, where: torch.device | torch.dtype) -> "World":
        return replace(self, net=self.net.to(where), image=self.image.to(where))


def networks() -> dict[str, nn.Module]:
    ours = UNet(channels=(8, 16), encoder=(1, 1), decoder=(1, 1), attention=(1,), head_dim=8,
                groups=4, unshuffle=2)
    theirs = UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    return {"ours": ours, "diffusers": theirs}


@pytest.fixture(params=["ours", "diffusers"])
def world(request, generator) -> World:
    net = networks()[request.param].eval()
    with torch.no_grad():
        for p in net.parameters():  # fresh networks begin with zeros that would hide mistakes
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    image = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    return World(request.param, net, image)


def call(module, world: World, seed: int = 0, **changes) -> Tensor:
    """`module.edit` with what it asks for; `changes` win."""
    asked = inspect.signature(module.edit).parameters
    known = world.vocabulary(seed) | weights(module, world)
    return module.edit(**{k: v for k, v in known.items() if k in asked} | changes)


def weights(module, world: World) -> dict:
    """What `tiny` gives, if there is one, in the dtype and place of the picture."""
    tiny = module.tiny() if hasattr(module, "tiny") else {}
    return {k: moved(v, world.image) for k, v in tiny.items()}


def moved(value, like: Tensor):
    if isinstance(value, Latent):
        for part in (value.unet, value.vae, *value.encoders):
            part.to(like)
    return value.to(like) if isinstance(value, (Tensor, nn.Module)) else value


def reconstructions(world: World, module=None) -> tuple[Tensor, Tensor]:
    """The two that count as plain: the picture, and what inversion and sampling make of it.

    With the module's own text-to-image model and its prompt, where it has one.
    """
    own = weights(module, world)
    eps = own["sd"].eps(own["prompt"]) if "sd" in own else world.eps
    path = SCHEDULE.trailing(4)
    with torch.no_grad():
        code = last(invert(eps, SCHEDULE, world.image, path)).x
        return world.image, last(ddim(eps, SCHEDULE, code, path)).x


def faults(module, world: World) -> list[str]:
    """What a module does not keep of the contract."""
    found = []
    if not re.search(r"\b(19|20)\d\d\b", doc := module.__doc__ or ""):
        found.append("no citation with a year")
    if not re.search(r"^ *paper\s.*\bhere$", doc, re.MULTILINE):
        found.append("no table of symbols")
    asked = inspect.signature(module.edit).parameters
    for name in module.NULL.keys() - asked.keys():
        return [*found, f"NULL names {name}, which edit does not take"]

    before, state = world.image.clone(), torch.random.get_rng_state()
    out = call(module, world)
    if not torch.equal(world.image, before):
        found.append("changes the picture it is given")
    if "generator" in asked and not torch.equal(torch.random.get_rng_state(), state):
        found.append("draws from the global generator")
    if out.shape != before.shape or not out.isfinite().all():
        found.append(f"returns {tuple(out.shape)} for {tuple(before.shape)}, or not finite")
    if out.requires_grad:
        found.append("keeps a graph")
    if not torch.equal(out, call(module, world)):
        found.append("gives another picture for the same seed")
    if "generator" in asked and torch.equal(out, call(module, world, seed=1)):
        found.append("takes a generator that plays no part")

    plain = call(module, world, **module.NULL)
    if not any(torch.allclose(plain, r, atol=1e-5, rtol=0) for r in reconstructions(world, module)):
        found.append("is no plain reconstruction under NULL")
    if any(torch.allclose(out, r, atol=1e-3, rtol=0) for r in reconstructions(world, module)):
        found.append("edits nothing")
    return found + typing_faults(module, world) + refusal_faults(module, world)


def typing_faults(module, world: World) -> list[str]:
    """Does the result follow its input? A tensor made without device= lands on meta, and shows."""
    try:
        double = call(module, world.to(torch.float64)).dtype
    except RuntimeError:  # float32 met float64 inside
        double = None
    world.to(torch.float32)
    try:
        with torch.device("meta"):
            device = call(module, world).device
    except (RuntimeError, NotImplementedError):
        device = None
    found = ["does not follow the dtype"] if double != torch.float64 else []
    return found + (["does not follow the device"] if device != world.image.device else [])


def refusal_faults(module, world: World) -> list[str]:
    asked = inspect.signature(module.edit).parameters
    picture = next(k for k in ("image", "guide") if k in asked)
    holed = world.image.clone()
    holed[0, 0, 0, 0] = torch.nan
    bad = {
        "NaN": {picture: holed}, "integers": {picture: world.image.byte()},
        "no batch": {picture: world.image[0]}, "wrong channels": {picture: world.image[:, :2]},
        "path": {"path": [900, 950, 0]}, "path end": {"path": [900, -1]},
        "eta": {"eta": 1.5}, "t0": {"t0": T + 1},
    }
    found = []
    for what, change in bad.items():
        name = next(iter(change))
        if name not in asked:
            continue
        name = "x" if what == "wrong channels" else name  # the network knows it as x
        try:
            call(module, world, **change)
        except (TypeError, ValueError) as refusal:
            if "\n" in str(refusal) or not re.search(rf"\b{name}\b", str(refusal)):
                found.append(f"refuses {what} without a line that names {name}: {refusal}")
        except Exception as problem:
            found.append(f"fails on {what} with {type(problem).__name__}")
        else:
            found.append(f"accepts {what}")
    return found


# ---- the files

@pytest.mark.parametrize("name", NAMES)
def test_a_method_keeps_the_contract(name, world):
    assert faults(importlib.import_module(f"coursekit.edits.{name}"), world) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_method_runs_on_a_gpu(name, world):
    module = importlib.import_module(f"coursekit.edits.{name}")
    assert call(module, world.to(torch.device("cuda"))).device.type == "cuda"


def test_the_two_plain_reconstructions_differ(world):
    a, b = reconstructions(world)
    assert (a - b).abs().max() > 1e-2


# ---- the contract itself: each way to break it is seen

def stand_in(edit=sdedit.edit, **changes):
    sound = {"__doc__": sdedit.__doc__, "NULL": sdedit.NULL, "edit": edit}
    return SimpleNamespace(**sound | changes)


def wrapped(after):
    """SDEdit with something done to its result; `after` gets the result and all arguments."""
    def edit(eps, schedule, guide, t0, path, *, eta=1.0, generator=None):
        out = sdedit.edit(eps, schedule, guide, t0, path, eta=eta, generator=generator)
        return after(SimpleNamespace(**locals()))
    return edit


def scribbles(a):
    a.guide += 0.1
    return a.out


def uses_other_tensors(a):
    return a.out + torch.zeros(1)


def ignores_the_seed(eps, schedule, guide, t0, path, *, eta=1.0, generator=None):
    return sdedit.edit(eps, schedule, guide, t0, path, eta=eta,
                       generator=torch.Generator().manual_seed(0))


def changes_silently(eps, schedule, guide, t0, path, *, eta=1.0, generator=None):
    return sdedit.edit(eps, schedule, guide.nan_to_num(), t0, path, eta=eta, generator=generator)


@pytest.mark.parametrize("module, fault", [
    (stand_in(), None),
    (stand_in(__doc__="The idea, 2022."), "no table of symbols"),
    (stand_in(__doc__="    paper  here"), "no citation with a year"),
    (stand_in(NULL={"strength": 0}), "NULL names strength, which edit does not take"),
    (stand_in(NULL={"t0": T // 2}), "is no plain reconstruction under NULL"),
    (stand_in(wrapped(lambda a: a.guide.clone())), "edits nothing"),
    (stand_in(wrapped(scribbles)), "changes the picture it is given"),
    (stand_in(wrapped(lambda a: a.out + torch.randn(1))), "draws from the global generator"),
    (stand_in(wrapped(lambda a: a.out[:1])),
     "returns (1, 3, 8, 8) for (2, 3, 8, 8), or not finite"),
    (stand_in(wrapped(lambda a: a.out * torch.ones(1, requires_grad=True))), "keeps a graph"),
    (stand_in(ignores_the_seed), "takes a generator that plays no part"),
    (stand_in(wrapped(lambda a: a.out.float())), "does not follow the dtype"),
    (stand_in(wrapped(uses_other_tensors)), "does not follow the device"),
    (stand_in(changes_silently), "accepts NaN"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_broken_contract_is_seen(module, fault, world):
    found = faults(module, world)
    assert found == [] if fault is None else fault in found


def test_weights_come_from_tiny(world):
    def edit(eps, schedule, guide, t0, path, *, layer, generator=None):
        x = sdedit.edit(eps, schedule, guide, t0, path, generator=generator)
        with torch.no_grad():
            return x + layer(x) * bool(t0)
    module = stand_in(edit, tiny=lambda: {"layer": nn.Conv2d(3, 3, 1)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert call(module, world).shape == world.image.shape
    with pytest.raises(TypeError, match="layer"):
        call(stand_in(edit), world)
