"""Makers of tiny random checkpoints with the topology of Stable Diffusion 1.5, 2.1-v and XL.

Written as the real ones are, by diffusers' and transformers' own `save_pretrained`: the same
parts, block types, depths, processor names and scheduler settings; only the widths are small.
"""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline,
    StableDiffusionXLPipeline, UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

MERGES = ("c a", "ca t</w>", "p h", "ph o", "pho t", "phot o</w>", "o f</w>", "d o", "do g</w>")
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
PLAIN = ("DownBlock2D", "UpBlock2D")
CONTEXT = 24  # tokens; 77 in the real ones


def tokenizer(pad: str = "<|endoftext|>", **more) -> CLIPTokenizer:
    """CLIP's byte-level pairs with a handful of merges: "photo" is one token, "horse" five."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{c}</w>" for c in letters), *("".join(m.split()) for m in MERGES),
              "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)},
                         merges=[tuple(m.split()) for m in MERGES], pad_token=pad,
                         model_max_length=CONTEXT, **more)


def text_config(words: CLIPTokenizer, width: int, **more) -> CLIPTextConfig:
    return CLIPTextConfig(vocab_size=len(words), hidden_size=width, intermediate_size=2 * width,
                          num_hidden_layers=3, num_attention_heads=2,
                          max_position_embeddings=CONTEXT, bos_token_id=words.bos_token_id,
                          eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, **more)


def autoencoder(scale: float = 0.18215, **more) -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1,
                         down_block_types=("DownEncoderBlock2D",) * 4, sample_size=128,
                         up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=scale, **more)


def unet(down: str, width: int, channels: tuple[int, ...], **more) -> UNet2DConditionModel:
    """down has a letter a level: c for cross-attention, p for plain; up is its mirror."""
    kind = {"c": CROSS, "p": PLAIN}
    net = UNet2DConditionModel(
        sample_size=16, block_out_channels=channels, norm_num_groups=4, cross_attention_dim=width,
        down_block_types=tuple(kind[c][0] for c in down),
        up_block_types=tuple(kind[c][1] for c in reversed(down)), **more)
    with torch.no_grad():
        for p in net.parameters():  # small, so that 30 guided steps stay within sight
            p.add_(0.02 * torch.randn_like(p))
    return net


def sd15(folder: Path, **changes) -> Path:
    """Stable Diffusion 1.5: eps, PNDM scheduler, the same number of heads at every level."""
    words = tokenizer()
    parts = {"vae": autoencoder(), "tokenizer": words,
             "text_encoder": CLIPTextModel(text_config(words, 16)),
             "unet": unet("cccp", 16, (8, 16, 16, 16), attention_head_dim=2),
             "scheduler": PNDMScheduler(**BETAS, steps_offset=1, skip_prk_steps=True)}
    return _save(StableDiffusionPipeline, parts | changes, folder)


def sd21(folder: Path, **changes) -> Path:
    """Stable Diffusion 2.1: v, DDIM scheduler, linear projections, more heads at each level."""
    words = tokenizer(pad="!")
    parts = {"vae": autoencoder(), "tokenizer": words,
             "text_encoder": CLIPTextModel(text_config(words, 32, hidden_act="gelu")),
             "unet": unet("cccp", 32, (8, 16, 32, 32), attention_head_dim=(1, 2, 4, 4),
                          use_linear_projection=True, upcast_attention=True),
             "scheduler": DDIMScheduler(**BETAS, steps_offset=1, prediction_type="v_prediction")}
    return _save(StableDiffusionPipeline, parts | changes, folder)


def sdxl(folder: Path, **changes) -> Path:
    """Stable Diffusion XL: two texts, their summary and the picture's size; 70 blocks."""
    words, more_words = tokenizer(), tokenizer(pad="!")
    second = text_config(more_words, 24, hidden_act="gelu", projection_dim=24)
    parts = {"vae": autoencoder(0.13025, force_upcast=True),
             "tokenizer": words, "text_encoder": CLIPTextModel(text_config(words, 16)),
             "tokenizer_2": more_words, "text_encoder_2": CLIPTextModelWithProjection(second),
             "unet": unet("pcc", 40, (8, 16, 32), attention_head_dim=(1, 2, 4),
                          transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
                          addition_embed_type="text_time", addition_time_embed_dim=4,
                          projection_class_embeddings_input_dim=24 + 6 * 4),
             "scheduler": EulerDiscreteScheduler(**BETAS, steps_offset=1,
                                                 timestep_spacing="leading")}
    return _save(StableDiffusionXLPipeline, parts | changes, folder)


def rewrite(file: Path, **changes) -> None:
    """Changes entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _save(kind: type, parts: dict, folder: Path) -> Path:
    more = {} if kind is StableDiffusionXLPipeline else {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    kind(**parts, **more).save_pretrained(folder)
    # The real files say so under every scheduler's name; a scheduler that has no use for an
    # entry drops it when it is saved again.
    rewrite(folder / "scheduler/scheduler_config.json", clip_sample=False, set_alpha_to_one=False)
    return folder


MAKERS = {"sd15": sd15, "sd21": sd21, "sdxl": sdxl}
