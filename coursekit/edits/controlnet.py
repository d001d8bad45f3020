"""ControlNet: draw what a text says where a map says: a silhouette, a line drawing, a depth.

Zhang, Rao & Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", ICCV 2023.

A copy of the U-Net's encoder learns to look at the map together with the noisy picture, and what it
finds is added to the skips and to the middle of the U-Net itself, which stays as it was. The copy
is joined by convolutions that begin at zero, so that training starts from a model that still draws.

    paper                         here
    c_i                           hint           (b, c, h, w) in [0, 1], of the picture's size
    F(.; Theta), locked           sd.unet
    F(.; Theta_c), Z, E           net            diffusers' ControlNetModel, all three
    y_c - y, before the decoder   `residuals`    one map a skip, and one for the middle
    c_t                           prompt, target
    "guess mode", in the code     negative_hint=False, fade=True

    held = under(sd, Control(load("portraits-controlnet"), hint))
    eps = held.eps("a photo of a cat", w=5.0)

A model under control is a `Latent` as any other: every sampler, inversion and method that takes one
takes it, Prompt-to-Prompt and SDEdit among them, and attention under control is that of the U-Net
alone. By hand, on pixels: `nets/hinted.py`.

With the hint in both halves of guidance, w leads to the words and not to the hint; without it in
the negative one, to both, and a hint can guide without words. Where the official code differs: when
it guesses, it multiplies its 12 skips by 0.825^12 .. 0.825; here, as in diffusers, the factors rise
from 0.1 to 1 whatever the number of skips. Where diffusers differs: of S hops it controls those
that lie in a window whole; here both ends of a window are rounded down, as in every method of this
folder. On whole hops the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coursekit import pretrained
from coursekit.diffusion.predict import diffusers_time
from coursekit.diffusion.sample import ddim, last
from coursekit.manifest import read_json
from coursekit.nets import checkpoint, injection, parts
from coursekit.nets import tiny as models
from coursekit.nets.injection import Picture
from coursekit.nets.latent import DTYPES, Latent, Prompt

PAGE, KIND = "config.json", "ControlNetModel"
WHOLE = (0.0, 1.0)
# What decides the shapes that meet, of a U-Net's configuration and of a ControlNet's.
MEET = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim",
        "addition_embed_type", "projection_class_embeddings_input_dim")


@dataclass(frozen=True, eq=False)
class Control:
    """A ControlNet, what it shall follow, how firmly and when.

    net            diffusers' ControlNetModel, as `load` gives it
    hint           (b, c, h, w) in [0, 1]: one for all pictures or one for each, of their size
    strength       times the residuals; 0 is the model alone
    window         the two shares of the path's hops, from the noisy end, between which it acts
    negative_hint  whether the negative half of guidance follows it, too
    fade           whether finer maps count less: from 0.1 for the first skip to 1 for the middle

    TypeError or ValueError names what is not as said.
    """

    net: Any
    hint: Tensor
    strength: float = 1.0
    window: tuple[float, float] = WHOLE
    negative_hint: bool = True
    fade: bool = False

    def __post_init__(self) -> None:
        if type(self.net).__name__ != KIND:
            raise TypeError(f"net is {type(self.net).__name__}: accepted is a {KIND}, as of load")
        _check_hint(self.hint, self.net.config.conditioning_channels)
        if not isinstance(self.strength, Real) or not isfinite(self.strength):
            raise ValueError(f"strength={self.strength!r}: accepted is a finite number")
        _hops(self.window, 1)


NULL = {"strength": 0.0, "w": 1.0}  # where the target is the prompt


@torch.no_grad()
def edit(
    sd: Latent,
    image: Picture,
    net: Any,
    hint: Tensor,
    prompt: Prompt,
    target: Prompt,
    path: Sequence[int],
    *,
    negative: Prompt = "",
    w: float = 7.5,
    strength: float = 1.0,
    window: tuple[float, float] = WHOLE,
) -> Tensor:
    """Latents (b, c, h, w) of the target, drawn from the picture's own noise where the hint says.

    image   the source as latents (b, c, h, w), which are inverted with `prompt` at w = 1 and no
            control; or its states at every time of the path, as from `invert` or `ddim`.
    prompt  what the source shows; one sentence for all pictures or one for each, as `target` and
            `negative`.
    path    noisy to clean, e.g. sd.path(50).
    net, hint, strength, window  as in `Control`.
    ValueError or TypeError names the argument that is not as said.
    """
    held = under(sd, Control(net, hint, strength, window), path)
    prompts = {"prompt": prompt, "target": target, "negative": negative}
    path, source = injection.states(sd, image, path, w, prompts)
    return last(ddim(held.eps(target, negative, w), sd.schedule, source[path[0]], path)).x


def under(sd: Latent, controls: Control | Sequence[Control],
          path: Sequence[int] | None = None) -> Latent:
    """The model under one control or several, whose residuals add up; `sd` itself stays as it is.

    path  the whole path of the sampler, where a control has a window. A hop is known by the time
          at which the sampler asks: one at or below the hop's first time and above its last.
    ValueError: a ControlNet made for another model, or a `sd` that is under control already; when
    it is called, a hint of another size than the picture, or of another number than the pictures.
    """
    controls = [controls] if isinstance(controls, Control) else list(controls)
    if sd.beside is not None:
        raise ValueError("sd has a network beside its U-Net: accepted are all controls at once")
    for control in controls:
        check_fit(sd, control.net)
        sd.check_place("hint", control.hint)
    acts = [_gate(sd, control, path) for control in controls]

    def beside(x: Tensor, t: int, inputs: dict[str, Any], n: int) -> dict[str, Any]:
        found = [residuals(sd, control, x, t, inputs, n)
                 for control, acting in zip(controls, acts, strict=True) if acting(t)]
        if not found:
            return {}
        *skips, middle = (sum(maps) for maps in zip(*found, strict=True))
        return {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}

    return replace(sd, beside=beside)


def residuals(sd: Latent, control: Control, x: Tensor, t: int, inputs: dict[str, Any],
              n: int) -> list[Tensor]:
    """What is added to each skip and to the middle, (rows, c, h, w) each, for x (rows, c, h, w).

    inputs  of the U-Net's call, as diffusers names them.
    n       how many of the rows, the last, are the prompt's. Where the others shall not follow the
            hint, zero is added to them.
    """
    net, hint = control.net, control.hint
    _check_call(sd, control, x, n)
    rows = len(x) if control.negative_hint else n
    time = diffusers_time(torch.full((rows,), t, device=x.device))
    skips, middle = net(
        x[-rows:].to(net.dtype), time, **_last(rows, inputs, net.dtype),
        controlnet_cond=hint.to(net.dtype).repeat(rows // len(hint), 1, 1, 1),
        conditioning_scale=control.strength, guess_mode=control.fade, return_dict=False)
    maps = (r.to(sd.unet.dtype) for r in (*skips, middle))
    return [torch.cat([r.new_zeros(len(x) - rows, *r.shape[1:]), r]) for r in maps]


def as_hint(maps: Tensor, channels: int = 3) -> Tensor:
    """Maps (b, h, w) or (b, 1, h, w), bool or in [0, 1], as a hint (b, channels, h, w), float32.

    A ControlNet as published takes pictures, so three channels, all alike.
    """
    if not isinstance(maps, Tensor) or maps.ndim not in (3, 4) or maps.shape[1:-2] not in (
            (), (1,)):
        kind = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps is {kind}: accepted are (b, h, w) and (b, 1, h, w)")
    hint = maps.float() if maps.ndim == 4 else maps.float()[:, None]
    hint = hint.repeat(1, channels, 1, 1)
    _check_hint(hint, channels)
    return hint


# ---- time -----------------------------------------------------------------------------------


def _gate(sd: Latent, control: Control, path: Sequence[int] | None) -> Callable[[int], bool]:
    """t -> whether the control acts there."""
    if not control.strength:
        return lambda t: False
    if tuple(control.window) == WHOLE:
        return lambda t: True
    if path is None:
        raise ValueError(f"path is missing: window={control.window!r} is shares of its hops")
    path = sd.schedule.check_path(path)
    hops = _hops(control.window, len(path) - 1)

    def acting(t: int) -> bool:
        i = sum(s >= t for s in path) - 1  # SDEdit enters a path between two of its times
        return hops.start <= min(max(i, 0), len(path) - 2) < hops.stop

    return acting


def _hops(window: tuple[float, float], S: int) -> slice:
    """Which of S hops a window holds: (0.2, 0.5) of 10 are the third to the fifth."""
    whole = isinstance(window, Sequence) and len(window) == 2
    if not whole or not all(isinstance(s, Real) and 0 <= s <= 1 for s in window) or \
            window[0] > window[1]:
        raise ValueError(f"window={window!r}: accepted are two shares of the hops in [0, 1] that "
                         "do not fall")
    return slice(*(injection.window("window", s, S) for s in window))


# ---- refusals -------------------------------------------------------------------------------


def check_fit(sd: Latent, net: Any) -> None:
    """ValueError where a ControlNet is made for another U-Net or autoencoder, or lies elsewhere."""
    for name in MEET:
        theirs, ours = (_plain(c.config.get(name)) for c in (net, sd.unet))
        if theirs != ours:
            raise ValueError(f"net has {name}={theirs}, the U-Net of the model {ours}: accepted is "
                             "a ControlNet that was made for it")
    stride = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    if stride != sd.factor:
        raise ValueError(f"net brings hints down {stride} times, the autoencoder of the model "
                         f"pictures {sd.factor} times: accepted is a ControlNet made for it")
    if net.config.global_pool_conditions:
        raise ValueError("net pools its hints over the picture (global_pool_conditions): accepted "
                         "is one that says where")
    sd.check_place("net", next(net.parameters()))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # as JSON has it


def _check_hint(hint: Tensor, channels: int) -> None:
    if not isinstance(hint, Tensor) or not hint.is_floating_point():
        kind = hint.dtype if isinstance(hint, Tensor) else type(hint).__name__
        raise TypeError(f"hint is {kind}: accepted is a floating tensor in [0, 1], as of as_hint")
    if hint.ndim != 4 or hint.shape[1] != channels or 0 in hint.shape:
        raise ValueError(f"hint has shape {tuple(hint.shape)}: accepted is (b, {channels}, h, w), "
                         "as of as_hint")
    low, high = (float(v) for v in hint.detach().aminmax())
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ValueError(f"hint has values in [{low:g}, {high:g}]: accepted are [0, 1], unlike "
                         "those of pictures")


def _check_call(sd: Latent, control: Control, x: Tensor, n: int) -> None:
    hint, channels = control.hint, sd.unet.config.in_channels
    if x.shape[1] != channels:
        raise ValueError(f"x: {x.shape[1]} channels, the network takes {channels}")
    h, w = (sd.factor * k for k in x.shape[2:])
    if hint.shape[2:] != (h, w):
        raise ValueError(f"hint is {hint.shape[2]}x{hint.shape[3]} pixels, the picture {h}x{w}: "
                         "accepted is a hint of its size")
    if n % len(hint):
        raise ValueError(f"hint: {len(hint)} for {n} pictures, accepted are 1 and {n}")


def _last(rows: int, inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The last rows of the inputs, in the precision of the ControlNet."""
    return {k: _last(rows, v, dtype) if isinstance(v, dict) else v[-rows:].to(dtype)
            for k, v in inputs.items()}


# ---- loading --------------------------------------------------------------------------------


def load(source: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """diffusers' ControlNetModel of that name, folder or hub id; frozen, in evaluation mode.

    ValueError in one line: an unknown source, a folder that holds no ControlNet, weights that do
    not fit their configuration or the device's memory, a dtype not in `latent.DTYPES`.
    """
    pretrained.check_device(device)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: accepted are {', '.join(map(str, DTYPES))}")
    found = checkpoint.find(pretrained.find(source))
    page = read_json(found.fetch([PAGE]) / PAGE) if PAGE in found.names else {}
    if page.get("_class_name") != KIND:
        what = f"says {page.get('_class_name')}" if page else "is missing"
        raise ValueError(f"'{source}' is no ControlNet ({PAGE} {what}): accepted is a {KIND} as "
                         "diffusers' save_pretrained writes it")
    from diffusers import ControlNetModel

    variant, files = found.weights("", dtype)
    checkpoint.check_room(found.source, sum(map(found.count, files)), dtype, device)
    net = parts.read(ControlNetModel, found.fetch([PAGE, *files]), "", variant, dtype)
    return net.to(device).eval().requires_grad_(False)


def tiny() -> dict[str, Any]:
    """Arguments that hold weights, small and random, and their words."""
    from diffusers import ControlNetModel

    sd = models.latent()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        net = ControlNetModel.from_unet(sd.unet, conditioning_embedding_out_channels=(4, 8))
        for p in net.eval().requires_grad_(False).parameters():  # zeros would change nothing
            p.add_(0.05 * torch.randn_like(p))
        hint = torch.rand(1, 3, 16, 16)
    return {"sd": sd, "net": net, "hint": hint, "prompt": "a dog", "target": "a dog"}
