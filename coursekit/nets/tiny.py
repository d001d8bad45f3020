"""A text-to-image model too small to draw anything: what a method is shown to run on.

The parts and block types are those of Stable Diffusion; its pictures have three channels, so that
it takes the same ones as a pixel network does. Every token is a byte: "dog" has three.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from coursekit.diffusion.schedule import Schedule
from coursekit.nets.latent import Latent

CONTEXT = 24  # tokens
TEXT = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": CONTEXT}
UNET = {"sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (8, 16),
        "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2,
        "cross_attention_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2}
VAE = {"block_out_channels": (4, 4), "layers_per_block": 1, "latent_channels": 3,
       "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * 2,
       "up_block_types": ("UpDecoderBlock2D",) * 2}


@cache
def latent(seed: int = 0) -> Latent:
    """One random model a seed, made on the CPU in float32: v, linear schedule, 8x8 latents.

    Made once and shared: whoever moves its parts moves them for all. Global generators are left
    as they were.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    words = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[],
                          model_max_length=CONTEXT)
    start, end = len(tokens) - 2, len(tokens) - 1
    config = CLIPTextConfig(vocab_size=len(tokens), bos_token_id=start, eos_token_id=end,
                            pad_token_id=end, **TEXT)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
        text = CLIPTextModel(config)
        for net in (unet, vae, text):
            _roughen(net)
        return Latent(unet, vae, (words,), (text,), Schedule.linear(), "v")


@torch.no_grad()
def _roughen(net: nn.Module) -> None:
    """Fresh networks begin with zeros that would hide mistakes."""
    for p in net.eval().requires_grad_(False).parameters():
        p.add_(0.05 * torch.randn_like(p))
