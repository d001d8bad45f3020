"""Trained models: by shipped name, from a folder, or by hub id; each with its schedule.

    load("portraits-ddpm")      shipped: checked against the manifest before anything is read
    load("./runs/mine")         a folder that `save` or diffusers' `save_pretrained` wrote
    load("google/ddpm-cat-256") a hub id, through diffusers' `from_pretrained`
    load_latent("portraits-sd") text to image, likewise by name, folder or hub id
    load("portraits-clip")      an open_clip folder: its net is a `nets.clip.Clip`
    path("portraits-ddpm")      the shipped folder, for libraries that load it themselves

Our folder holds `model.safetensors` (fp16; float32 in memory), `config.json` and `card.md`:

    {"net": "unet", "config": {..}, "schedule": {..}, "prediction": "v"}

Weights are read from safetensors only, never from pickles. Heavy imports stand where they are
needed, so that names and devices can be refused at once.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coursekit.images import whole
from coursekit.manifest import names, path, read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from coursekit.diffusion.predict import Eps
    from coursekit.diffusion.schedule import Schedule
    from coursekit.nets.latent import Latent

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
NETS = {
    "judge": ("coursekit.nets.judge", "Judge"),
    "unet": ("coursekit.nets.unet", "UNet"),
}
OPEN_CLIP = "open_clip_config.json"  # a folder with this file holds an open_clip model
DIFFUSERS_NETS = ("UNet2DModel", "UNet2DConditionModel")


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode and what is needed to use it.

    net         nn.Module, float32, on the device asked for
    schedule    the Schedule it was trained with; None for a network that predicts no noise
    prediction  "eps", "x0" or "v"; None likewise
    source      the folder it was read from, or the hub id
    diffusers   whether it is a diffusers network, which counts time from 0
    """

    net: nn.Module
    schedule: Schedule | None
    prediction: str | None
    source: Path | str
    diffusers: bool = False

    @property
    def card(self) -> Path:
        """The page that says how the model was made; it exists for every shipped model."""
        return Path(self.source) / "card.md"

    def eps(self, **conditions: Any) -> Eps:
        """The network as a noise predictor (x, t) -> eps, with its conditions closed over."""
        from coursekit.diffusion.predict import from_diffusers, from_network

        if self.schedule is None or self.prediction is None:
            kind = type(self.net).__name__
            raise ValueError(f"'{self.source}' is a {kind}: it predicts no noise")
        wrap = from_diffusers if self.diffusers else from_network
        return wrap(self.net, self.schedule, self.prediction, **conditions)


# ---- names ----------------------------------------------------------------------------------


def find(source: str | Path) -> Path | str:
    """What `source` means: a shipped model's folder (checked), a folder, or a hub id (a str)."""
    if str(source) in names():
        return path(str(source))
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, str) and HUB_ID.fullmatch(source):
        return source
    raise ValueError(f"source='{source}' is not known: accepted are {', '.join(names())}, "
                     "a folder, or a hub id owner/name")


def check_device(device: str) -> str:
    """`device` itself if torch can use it here: cpu, cuda, cuda:N or mps; else ValueError."""
    if not isinstance(device, str) or not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise ValueError(f"device={device!r} is not known: accepted are cpu, cuda, cuda:N, mps")
    if device == "cpu":
        return device
    import torch

    usable = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if len(usable) > 1:
        usable.append("cuda")
    if torch.backends.mps.is_available():
        usable.append("mps")
    if device not in usable:
        raise ValueError(f"device={device!r} is not available here: accepted are "
                         f"{', '.join(usable)}")
    return device


# ---- loading --------------------------------------------------------------------------------


def load(source: str | Path, device: str = "cpu", *, schedule: Schedule | None = None,
         prediction: str | None = None) -> Loaded:
    """The model that `source` names: a shipped name, a folder, or a hub id.

    schedule and prediction are for a diffusers network that comes without its scheduler; where
    the model says them itself they are refused. ValueError names what is wrong with the source.
    """
    check_device(device)
    found = find(source)
    if isinstance(found, Path) and (found / OPEN_CLIP).is_file():
        _refuse_given(found, schedule, prediction)
        from coursekit.nets.clip import load as load_clip

        loaded = Loaded(load_clip(found), None, None, found)
    elif isinstance(found, Path) and "net" in read_json(found / "config.json", missing_ok=True):
        loaded = _load_own(found, schedule, prediction)
    else:
        loaded = _load_diffusers(found, schedule, prediction)
    loaded.net.to(device).eval()
    return loaded


def load_latent(source: str | Path, device: str = "cpu",
                dtype: torch.dtype | None = None) -> Latent:
    """The text-to-image model that `source` names: Stable Diffusion 1, 2, XL, or ours.

    dtype: float32 if None, float16 or bfloat16. ValueError as in `Latent.from_pretrained`.
    """
    check_device(device)
    found = find(source)
    import torch

    from coursekit.nets.latent import Latent

    return Latent.from_pretrained(found, device=device, dtype=dtype or torch.float32)


def _load_own(folder: Path, schedule: Schedule | None, prediction: str | None) -> Loaded:
    import safetensors.torch

    from coursekit.diffusion.schedule import Schedule

    _refuse_given(folder, schedule, prediction)
    page = read_json(folder / "config.json")
    file = folder / "model.safetensors"
    if page["net"] not in NETS:
        raise ValueError(f"'{folder}/config.json' says net={page['net']!r}: accepted are "
                         f"{', '.join(NETS)}")
    module, name = NETS[page["net"]]
    try:
        net = getattr(importlib.import_module(module), name)(**page["config"])
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"'{folder}/config.json' describes no {name} ({problem})") from problem
    try:
        state = safetensors.torch.load(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"'{file}' is missing") from None
    except safetensors.SafetensorError as problem:
        raise ValueError(f"'{file}' is damaged or no safetensors file ({problem})") from None
    _check_fit(file, net.state_dict(), state)
    net.load_state_dict(state)  # copies fp16 into the network's own float32
    said = page.get("schedule")
    return Loaded(net, said and Schedule.from_config(said), page.get("prediction"), folder)


def _check_fit(file: Path, wanted: dict, state: dict) -> None:
    for key in sorted(wanted.keys() | state.keys()):
        shapes = [tuple(d[key].shape) if key in d else None for d in (state, wanted)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"'{file}' does not fit its config.json: {key} is {shapes[0]}, "
                             f"the network has {shapes[1]}")


def _load_diffusers(source: Path | str, schedule: Schedule | None,
                    prediction: str | None) -> Loaded:
    import diffusers

    index = _diffusers_config(diffusers.DiffusionPipeline, source)
    parts = {k for k, v in index.items() if isinstance(v, (list, tuple)) and v[0]}
    if index and parts != {"unet", "scheduler"}:
        raise ValueError(f"'{source}' is a {index.get('_class_name')} of {', '.join(sorted(parts))}"
                         ": accepted is a pipeline of a unet and a scheduler; text to image is "
                         "read by load_latent")
    inside = {"subfolder": "unet"} if index else {}
    kind = _diffusers_config(diffusers.UNet2DModel, source, **inside).get("_class_name")
    if kind not in DIFFUSERS_NETS:
        raise ValueError(f"'{source}' holds no model that is known here (class {kind}): accepted "
                         f"are a folder written by save, {', '.join(DIFFUSERS_NETS)}, or a "
                         "pipeline of one; a hub id needs the network or its cache")
    if index:
        _refuse_given(source, schedule, prediction)
        schedule, prediction = _diffusers_schedule(source)
    elif schedule is None or prediction is None:
        raise ValueError(f"'{source}' is a bare {kind}: give schedule= and prediction=")
    try:
        net = getattr(diffusers, kind).from_pretrained(source, use_safetensors=True, **inside)
    except Exception as problem:  # diffusers, the hub and safetensors each raise their own
        raise ValueError(f"'{source}' cannot be read ({_line(problem)})") from problem
    return Loaded(net.float(), schedule, prediction, source, diffusers=True)


def _diffusers_config(kind: Any, source: Path | str, **inside: str) -> dict[str, Any]:
    """The configuration that class reads from the source, {} where there is none."""
    try:
        return kind.load_config(source, **inside)
    except OSError:
        return {}


def _diffusers_schedule(source: Path | str) -> tuple[Schedule, str]:
    import diffusers

    from coursekit.diffusion.predict import DIFFUSERS_PREDICTIONS
    from coursekit.diffusion.schedule import Schedule

    page = _diffusers_config(diffusers.DDPMScheduler, source, subfolder="scheduler")
    if "beta_schedule" not in page:  # flow matching has none: defaults would be silently wrong
        raise ValueError(f"'{source}' has a {page.get('_class_name')}: accepted is a scheduler "
                         "with a beta_schedule")
    scheduler = diffusers.DDPMScheduler.from_config(page)
    said = scheduler.config.prediction_type
    if said not in DIFFUSERS_PREDICTIONS:
        raise ValueError(f"'{source}' has prediction_type={said!r}: accepted are "
                         f"{', '.join(DIFFUSERS_PREDICTIONS)}")
    return Schedule.from_diffusers(scheduler), DIFFUSERS_PREDICTIONS[said]


def _refuse_given(source: Path | str, schedule: Schedule | None, prediction: str | None) -> None:
    if schedule is not None or prediction is not None:
        raise ValueError(f"'{source}' says its own schedule and prediction: leave both out")


# ---- writing --------------------------------------------------------------------------------


def save(folder: str | Path, net: nn.Module, config: dict[str, Any],
         schedule: Schedule | None = None, prediction: str | None = None) -> Path:
    """Writes our folder for `load`: weights as fp16 safetensors, then config.json.

    config holds the keyword arguments that build the network again. Each file appears whole or
    not at all. Raises before writing when a weight is NaN or would overflow fp16.
    """
    import safetensors.torch

    folder = Path(folder)
    kinds = [k for k, v in NETS.items() if v == (type(net).__module__, type(net).__name__)]
    if not kinds:
        raise TypeError(f"net is a {type(net).__name__}: accepted are "
                        f"{', '.join(name for _, name in NETS.values())}")
    state = halved(net)
    page = {"net": kinds[0], "config": config,
            "schedule": schedule and schedule.to_config(), "prediction": prediction}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "model.safetensors", safetensors.torch.save(state))
    _write(folder / "config.json", (json.dumps(page, indent=2) + "\n").encode())
    return folder


def halved(net: nn.Module) -> dict[str, Tensor]:
    """The state of a network in fp16 on the CPU; ValueError for a weight that does not fit."""
    state = {}
    for key, value in net.state_dict().items():
        small = value.detach().cpu().contiguous()
        state[key] = small.half() if small.is_floating_point() else small
        if not state[key].isfinite().all():
            raise ValueError(f"net.{key} holds values that fp16 cannot: accepted is +-65504")
    return state


def _write(file: Path, content: bytes) -> None:
    with whole(file) as part:
        part.write_bytes(content)


def _line(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:200]
