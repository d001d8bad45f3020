"""Images a second of a whole training step, beside diffusers' UNet2DModel in the same run.

Every peer has our levels (32, 16, 8, 4), attention where we have it, our number of parameters to
2 %, and the same 2x2 input transform; they differ in how they spend them. The first keeps our
widths where the maps are large, which is where fine detail and the arithmetic are; the others are
narrower there, one with the library's default of two blocks a level and one with one. A step is
forward, backward, clipping, Adam and the average, by the same code for all.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coursekit.bench import Row, medians
from coursekit.diffusion.schedule import Schedule
from coursekit.diffusion.train import fast_dtype, train
from coursekit.nets.unet import UNet

BATCH, N = 32, 5
PEERS = {  # blocks a level, widths
    "our widths at 32x32 and 16x16": (1, (48, 64, 96, 136)),
    "two blocks a level": (2, (32, 48, 72, 120)),
    "one block a level": (1, (36, 52, 96, 144)),
}


class Folded(nn.Module):
    """A UNet2DModel behind the 2x2 transform, called as our networks are."""

    def __init__(self, blocks: int, channels: tuple[int, ...]):
        super().__init__()
        from diffusers import UNet2DModel

        attends = [i in UNet().config["attention"] for i in range(4)]
        self.net = UNet2DModel(
            sample_size=32, in_channels=12, out_channels=12, layers_per_block=blocks,
            block_out_channels=channels, norm_num_groups=4, attention_head_dim=8,
            down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
            up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return F.pixel_shuffle(self.net(F.pixel_unshuffle(x, 2), t - 1).sample, 2)


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """One row a peer: images/s of ours and of the peer, medians of interleaved steps."""
    pictures = torch.rand(BATCH, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    pictures = pictures.to(device)
    dtype = fast_dtype(device)
    for name, (blocks, channels) in PEERS.items():
        nets = [UNet(), Folded(blocks, channels)]
        ours, theirs = (sum(p.numel() for p in net.parameters()) for net in nets)
        if not math.isclose(ours, theirs, rel_tol=0.02):
            raise ValueError(f"PEERS: '{name}' has {theirs} parameters, ours {ours}: equal to 2 %")
        times = medians(*(_step(net.to(device), pictures, dtype, seed) for net in nets), n=N)
        yield Row(f"training, peer with {name}", BATCH / times[0], BATCH / times[1],
                  "images/s", "higher", N)


def _step(net: nn.Module, pictures: Tensor, dtype: torch.dtype | None,
          seed: int) -> Callable[[], object]:
    updates = train(net, lambda k: pictures, Schedule.cosine(), steps=10**9, autocast=dtype,
                    seed=seed)
    return partial(next, updates)
