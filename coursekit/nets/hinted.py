"""A U-Net that follows a map, built by hand: a frozen network, a trainable copy, zero convolutions.

    y = F(x; Theta) + Z(F(x + Z(c; Theta_z1); Theta_c); Theta_z2)        Zhang et al. 2023, eq. 2

The paper writes it for one block. Of a U-Net the encoder and the middle are copied as a whole: the
map c comes in behind the first convolution, and what each block of the copy finds goes through a Z
of its own to the block's skip, or to the middle's output. The decoder alone sees it.

Z is a 1x1 convolution that begins at zero, so that the whole begins as F to the bit. It learns all
the same: the gradient of its weight is what goes in times what comes back, and neither is zero.

Here the map has the picture's own size and is folded as the picture is; a U-Net on latents needs a
small network first that brings the map down to their size.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coursekit.nets.unet import UNet, time_embedding


def zero_conv(inside: int, out: int) -> nn.Conv2d:
    """A 1x1 convolution whose weight and bias begin at zero."""
    conv = nn.Conv2d(inside, out, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class Copy(nn.Module):
    """A copy of the encoder and the middle of a U-Net that learns, and looks at a map as well.

    forward(x (b, c, h, w), t (b,), hint (b, hint_channels, h, w)) -> one map a skip of the U-Net,
    then one for its middle: what its `residuals` take.
    """

    def __init__(self, net: UNet, hint_channels: int):
        super().__init__()
        channels, self.unshuffle = net.config["channels"], net.config["unshuffle"]
        self.width = channels[0]
        self.time, self.input = deepcopy(net.time), deepcopy(net.input)
        self.down_blocks, self.shrink = deepcopy(net.down_blocks), deepcopy(net.shrink)
        self.mid_block = deepcopy(net.mid_block)
        self.requires_grad_(True)  # what is copied may be frozen
        skips = [c for c, stages in zip(channels, net.config["encoder"], strict=True)
                 for _ in range(stages)]
        self.enter = zero_conv(hint_channels * self.unshuffle**2, self.width)
        self.leave = nn.ModuleList(zero_conv(c, c) for c in (*skips, channels[-1]))

    def forward(self, x: Tensor, t: Tensor, hint: Tensor) -> list[Tensor]:
        emb = self.time(time_embedding(t, self.width).to(x.dtype))
        h = self.input(F.pixel_unshuffle(x, self.unshuffle))
        h = h + self.enter(F.pixel_unshuffle(hint, self.unshuffle))
        maps = []
        for i, level in enumerate(self.down_blocks):
            h = self.shrink[i - 1](h) if i else h
            for stage in level:
                h = stage(h, emb, None, None)  # neither code nor text
                maps.append(h)
        maps.append(self.mid_block(h, emb, None, None))
        return [z(m) for z, m in zip(self.leave, maps, strict=True)]


class Controlled(nn.Module):
    """The frozen U-Net and its copy, called as a U-Net is, with a map of the picture's size.

    net            a UNet without slots for text or code; it is frozen in place
    hint_channels  of the map
    from_network(controlled, schedule, "v", hint=hint) makes an Eps of it.
    """

    def __init__(self, net: UNet, hint_channels: int = 1):
        super().__init__()
        for slot in ("context_dim", "code_dim"):
            if net.config[slot] is not None:
                raise ValueError(f"net has {slot}={net.config[slot]}: accepted is a UNet without "
                                 "slots for text or code")
        self.hint_channels = hint_channels
        self.copy = Copy(net, hint_channels)
        self.net = net.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor | int, hint: Tensor, strength: float = 1.0) -> Tensor:
        """x (b, c, h, w), t (b,) or one int; hint (b or 1, hint_channels, h, w)."""
        if hint.ndim != 4 or hint.shape[1:] != (self.hint_channels, *x.shape[2:]) or \
                len(hint) not in (1, len(x)):
            raise ValueError(f"hint has shape {tuple(hint.shape)}, expected (1 or {len(x)}, "
                             f"{self.hint_channels}, {x.shape[2]}, {x.shape[3]})")
        times = torch.as_tensor(t, device=x.device).expand(len(x))
        residuals = self.copy(x, times, hint.expand(len(x), -1, -1, -1))
        return self.net(x, t, residuals=[strength * r for r in residuals])
