"""The parts of a Stable Diffusion folder: which are accepted, and how each is read.

Every part goes through its own class's `from_pretrained`, from safetensors alone. What could be
read and would draw nonsense (random weights, a scheduler of another kind) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from coursekit.diffusion.predict import DIFFUSERS_PREDICTIONS
from coursekit.diffusion.schedule import Schedule

TEXTS = ("CLIPTextModel", "CLIPTextModelWithProjection")
PARTS = {"unet", "vae", "scheduler", "tokenizer", "text_encoder"}
SECOND = {"tokenizer_2", "text_encoder_2"}  # XL
IDLE = {"safety_checker", "feature_extractor", "image_encoder"}  # not read
MORE = ("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")


def text_kinds(source: str, index: dict[str, Any]) -> dict[str, Any]:
    """The text encoders of the pipeline and their classes, once its parts are those we know."""
    import transformers

    found = {k: v[1] for k, v in index.items() if isinstance(v, list) and len(v) == 2 and v[0]}
    names = found.keys() - IDLE
    texts = {k: found[k] for k in sorted(found) if k.startswith("text_encoder")}
    if names not in (PARTS, PARTS | SECOND) or not set(texts.values()) <= set(TEXTS):
        said = ", ".join(f"{k} ({v})" for k, v in sorted(found.items()))
        raise ValueError(f"'{source}' is a {index.get('_class_name')} of {said or 'nothing'}: "
                         "accepted is Stable Diffusion 1, 2 or XL, a unet, vae, scheduler and one "
                         "or two CLIP tokenizers and text models")
    return {part: getattr(transformers, kind) for part, kind in texts.items()}


def check_unet(source: str, config: Any, channels: int) -> None:
    """Refuses a U-Net that asks for more than noisy latents, a time and a text."""
    asked = [k for k in MORE if config.get(k) is not None]
    if config.in_channels != channels or asked:
        raise ValueError(f"'{source}' has a unet of {config.in_channels} channels with "
                         f"{', '.join(asked) or 'no further inputs'}: accepted is text to image, "
                         f"{channels} channels as the autoencoder has, with no further inputs")


def read(build: Any, folder: Path, part: str, variant: str | None, dtype: torch.dtype) -> Any:
    """A part through its class's own `from_pretrained`; ValueError where its weights do not fit."""
    import diffusers

    named = "torch_dtype" if issubclass(build, diffusers.ModelMixin) else "dtype"
    try:
        with quiet():
            net, said = build.from_pretrained(
                folder, subfolder=part, variant=variant, use_safetensors=True,
                output_loading_info=True, **{named: dtype})
    except Exception as problem:  # diffusers, transformers and safetensors each raise their own
        why = " ".join(str(problem).split())[:200]
        raise ValueError(f"'{folder / part}' cannot be read ({why})") from problem
    lacking = sorted(said["missing_keys"])
    if lacking:  # the libraries would go on with random ones
        raise ValueError(f"'{folder / part}' lacks {len(lacking)} weights, as {lacking[0]}")
    return net


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bar: it takes longer to draw than a tiny model takes to read."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def scheduling(folder: Path, source: str) -> dict[str, Any]:
    """Schedule, prediction and path as diffusers' DDIMScheduler reads them off the folder."""
    from diffusers import DDIMScheduler

    page = DDIMScheduler.load_config(folder, subfolder="scheduler")
    if "beta_schedule" not in page:  # flow matching has none: defaults would be silently wrong
        raise ValueError(f"'{source}' has a {page.get('_class_name')}: accepted is a scheduler "
                         "with a beta_schedule")
    scheduler = DDIMScheduler.from_config(page)
    said = scheduler.config
    if said.prediction_type not in DIFFUSERS_PREDICTIONS or said.steps_offset not in (0, 1):
        raise ValueError(f"'{source}' has prediction_type={said.prediction_type!r}, steps_offset="
                         f"{said.steps_offset}: accepted are {', '.join(DIFFUSERS_PREDICTIONS)}, "
                         "and 0 or 1")
    try:
        schedule = Schedule.from_diffusers(scheduler)
    except ValueError as problem:  # rescale_betas_zero_snr: eps means nothing at abar = 0
        raise ValueError(f"'{source}': its scheduler's table is no schedule ({problem})") from None
    return {"schedule": schedule, "prediction": DIFFUSERS_PREDICTIONS[said.prediction_type],
            "end": 0 if said.set_alpha_to_one else 1, "offset": said.steps_offset,
            "trailing": said.timestep_spacing == "trailing"}
