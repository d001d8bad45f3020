"""A U-Net for pixels or latents, with the slots that later methods need.

The layout is that of DDPM (Ho et al. 2020) and ADM (Dhariwal & Nichol 2021): residual blocks of
group norm, SiLU and 3x3 convolutions, self-attention on the small maps, skips from the encoder to
the decoder. Four choices make it quick on a processor without loss where it matters:

* `unshuffle=2` folds each 2x2 square of pixels into channels, so that no layer runs at full size;
* a decoder block keeps its width and *adds* a 1x1-projected skip, where the usual concatenation
  doubles the cost of the next convolution;
* a change of width happens in a 1x1 convolution on the smaller of the two maps;
* the time's scale and shift ride in the affine of the group norm (`AdaGN`) and cost nothing.

Slots, all off or null by default: `context` (text tokens, cross-attention), `code` (a global
vector, one for all levels or one a level, through AdaGN), `residuals` (ControlNet: one map a skip
and one for the middle block).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Code = Tensor | Sequence[Tensor | None] | None


def time_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of the time at `dim / 2` geometric frequencies.

    t: (b,) in steps, 0..T. Returns (b, dim) float32. Vaswani et al. 2017, section 3.5.
    """
    half = dim // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = t.float()[:, None] * frequency  # b half
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Fused:
    """The default attention processor: torch's fused attention, no probabilities kept."""

    def __call__(self, attn: "Attention", x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context
        q, k, v = attn.to_q(x), attn.to_k(source), attn.to_v(source)
        q, k, v = (a.unflatten(2, (attn.heads, -1)).transpose(1, 2) for a in (q, k, v))  # b h n d
        y = F.scaled_dot_product_attention(q, k, v, scale=attn.scale)
        return attn.to_out[1](attn.to_out[0](y.transpose(1, 2).flatten(2)))


class Attention(nn.Module):
    """Multi-head attention of tokens (b, n, dim) to themselves or to `context` (b, l, context_dim).

    Shows the same surface as the class of that name in diffusers, so that one control
    (`nets/control.py`) serves both.
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None = None):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim}: expected a multiple of heads={heads}")
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.is_cross_attention = context_dim is not None
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])
        self.processor = Fused()

    def set_processor(self, processor) -> None:
        self.processor = processor

    def get_processor(self):
        return self.processor

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.processor(self, x, context)


class AttentionBlock(nn.Module):
    """Residual self-attention, then cross-attention if there is text, on a map (b, c, h, w)."""

    def __init__(self, channels: int, head_dim: int, groups: int, context_dim: int | None):
        super().__init__()
        heads = max(1, channels // head_dim)
        self.norm1 = nn.GroupNorm(groups, channels)
        self.attn1 = Attention(channels, heads)
        nn.init.zeros_(self.attn1.to_out[0].weight)
        self.norm2 = self.attn2 = None
        if context_dim is not None:
            self.norm2 = nn.GroupNorm(groups, channels)
            self.attn2 = Attention(channels, heads, context_dim)
            nn.init.zeros_(self.attn2.to_out[0].weight)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h, w = x.shape[2:]
        x = x + _to_map(self.attn1(_to_tokens(self.norm1(x))), h, w)
        if self.attn2 is not None:
            x = x + _to_map(self.attn2(_to_tokens(self.norm2(x)), context), h, w)
        return x


def _to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)  # b c h w -> b n c


def _to_map(x: Tensor, h: int, w: int) -> Tensor:
    return x.transpose(1, 2).unflatten(2, (h, w))  # b n c -> b c h w


class AdaGN(nn.Module):
    """Group norm whose scale and shift depend on the time, and on a code where there is one.

    code_scale * (GN(x) * (1 + t_scale) + t_shift): DiffAE (Preechakul et al. 2022), eq. 7. Every
    conditional scale starts at 1 and shift at 0, so a code changes nothing before training.
    """

    def __init__(self, channels: int, groups: int, time_dim: int, code_dim: int | None):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.time = nn.Linear(time_dim, 2 * channels)
        self.code = nn.Linear(code_dim, channels) if code_dim else None
        for layer in filter(None, (self.time, self.code)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, emb: Tensor, code: Tensor | None) -> Tensor:
        b, c, h, w = x.shape
        scale, shift = self.time(emb).chunk(2, dim=1)  # b c
        weight = self.norm.weight * (1 + scale)
        bias = self.norm.bias * (1 + scale) + shift
        if self.code is not None and code is not None:
            k = 1 + self.code(F.silu(code))
            weight, bias = k * weight, k * bias
        # A batch of b images with g groups is one image with b*g groups: its affine then has an
        # entry for every image and channel, and the modulation needs no pass over x of its own.
        y = F.group_norm(x.reshape(1, b * c, h, w), b * self.norm.num_groups,
                         weight.reshape(-1), bias.reshape(-1), self.norm.eps)
        return y.view(b, c, h, w)


class ResBlock(nn.Module):
    """x + conv(silu(AdaGN(conv(silu(GN(x)))))), (b, c, h, w) -> the same."""

    def __init__(self, channels: int, groups: int, time_dim: int, code_dim: int | None,
                 dropout: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = AdaGN(channels, groups, time_dim, code_dim)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # a block starts as the identity
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, emb: Tensor, code: Tensor | None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(self.dropout(F.silu(self.norm2(h, emb, code))))


class Stage(nn.Module):
    """One step of a level: a skip added if it takes one, a residual block, attention if any."""

    def __init__(self, channels: int, skip: bool, attention: bool, head_dim: int, groups: int,
                 time_dim: int, code_dim: int | None, context_dim: int | None, dropout: float):
        super().__init__()
        self.skip = nn.Conv2d(channels, channels, 1) if skip else None
        self.res = ResBlock(channels, groups, time_dim, code_dim, dropout)
        self.attention = (AttentionBlock(channels, head_dim, groups, context_dim)
                          if attention else None)

    def forward(self, x: Tensor, emb: Tensor, code: Tensor | None, context: Tensor | None,
                skips: list[Tensor] | None = None) -> Tensor:
        if self.skip is not None:
            x = x + self.skip(skips.pop())
        x = self.res(x, emb, code)
        return x if self.attention is None else self.attention(x, context)


class Level(nn.ModuleList):
    """Stages in a row; its output can be tapped (`mid_block` is the h-space of Asyrp)."""

    def forward(self, x: Tensor, *conditions) -> Tensor:
        for stage in self:
            x = stage(x, *conditions)
        return x


class UNet(nn.Module):
    """forward(x (b, c, h, w), t (b,)) -> (b, c, h, w), the prediction a recipe trains it for.

    channels: width of each level, finest first. encoder, decoder: stages a level on either side
    (decoder >= encoder). attention: levels that attend, 0 the finest. unshuffle: 2 folds 2x2 pixels
    into channels first, 1 does not. context_dim, code_dim: sizes of a text token and of a global
    code, None where there is none. `config` holds the arguments, ready for JSON.
    """

    def __init__(self, image_channels: int = 3, channels: Sequence[int] = (48, 64, 128, 224),
                 encoder: Sequence[int] = (1, 1, 1, 0), decoder: Sequence[int] = (2, 1, 2, 0),
                 attention: Sequence[int] = (2, 3), head_dim: int = 32, groups: int = 8,
                 unshuffle: int = 2, context_dim: int | None = None, code_dim: int | None = None,
                 dropout: float = 0.0):
        super().__init__()
        self.config = {k: list(v) if isinstance(v, Sequence) else v for k, v in locals().items()
                       if k not in ("self", "__class__")}
        _check_sizes(channels, encoder, decoder, attention, groups, unshuffle)
        time_dim = 4 * channels[0]
        rest = (head_dim, groups, time_dim, code_dim, context_dim, dropout)

        self.time = nn.Sequential(nn.Linear(channels[0], time_dim), nn.SiLU(),
                                  nn.Linear(time_dim, time_dim), nn.SiLU())
        folded = image_channels * unshuffle**2
        self.input = nn.Conv2d(folded, channels[0], 3, padding=1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(channels):
            attends = i in attention
            self.down_blocks.append(Level(
                Stage(c, False, attends, *rest) for _ in range(encoder[i])))
            self.up_blocks.insert(0, Level(
                Stage(c, j < encoder[i], attends, *rest) for j in range(decoder[i])))
            if i + 1 < len(channels):
                self.shrink.append(nn.Conv2d(c, channels[i + 1], 3, stride=2, padding=1))
                self.grow.insert(0, nn.Conv2d(channels[i + 1], c, 1))
        c = channels[-1]
        self.mid_block = Level([Stage(c, False, True, *rest), Stage(c, False, False, *rest)])
        self.norm = nn.GroupNorm(groups, channels[0])
        self.output = nn.Conv2d(channels[0], folded, 3, padding=1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, t: Tensor | int, context: Tensor | None = None, code: Code = None,
                residuals: Sequence[Tensor] | None = None) -> Tensor:
        """x: (b, c, h, w), sides multiples of unshuffle * 2^(levels - 1). t: (b,) or one int, 1..T.

        context: (b, l, context_dim). code: (b, code_dim) for all levels or one such (or None) a
        level, finest first. residuals: one map a skip in encoder order, then one for the middle.
        Raises ValueError where a shape does not fit or a condition has no slot.
        """
        levels = len(self.config["channels"])
        codes = [code] * levels if code is None or isinstance(code, Tensor) else list(code)
        t = torch.as_tensor(t, device=x.device)
        self._check(x, t, context, codes, residuals)
        t = t.expand(x.shape[0])
        emb = self.time(time_embedding(t, self.config["channels"][0]).to(x.dtype))
        x = F.pixel_unshuffle(x, self.config["unshuffle"]) if self.config["unshuffle"] > 1 else x
        x = self.input(x)

        skips = []
        for i, level in enumerate(self.down_blocks):
            x = self.shrink[i - 1](x) if i else x
            for stage in level:
                x = stage(x, emb, codes[i], context)
                skips.append(x)
        x = self.mid_block(x, emb, codes[-1], context)
        if residuals is not None:
            skips = [s + r for s, r in zip(skips, residuals[:-1], strict=True)]
            x = x + residuals[-1]
        for i, level in enumerate(self.up_blocks):
            if i:
                x = F.interpolate(self.grow[i - 1](x), scale_factor=2.0, mode="nearest")
            x = level(x, emb, codes[levels - 1 - i], context, skips)

        x = self.output(F.silu(self.norm(x)))
        return F.pixel_shuffle(x, self.config["unshuffle"]) if self.config["unshuffle"] > 1 else x

    def _check(self, x: Tensor, t: Tensor, context: Tensor | None, codes: list,
               residuals: Sequence[Tensor] | None) -> None:
        c = self.config
        side = c["unshuffle"] * 2 ** (len(c["channels"]) - 1)
        if x.ndim != 4 or x.shape[1] != c["image_channels"]:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (b, {c['image_channels']}, "
                             "h, w)")
        if x.shape[2] % side or x.shape[3] % side or 0 in x.shape:
            raise ValueError(f"x is {x.shape[2]}x{x.shape[3]}, each side must be a positive "
                             f"multiple of {side}")
        if t.shape not in ((), x.shape[:1]):
            raise ValueError(f"t has shape {tuple(t.shape)}, expected an int or ({x.shape[0]},)")
        if (context is None) != (c["context_dim"] is None):
            raise ValueError(f"context is {'missing' if context is None else 'given'}, but "
                             f"context_dim is {c['context_dim']}")
        if context is not None and context.shape[::2] != (x.shape[0], c["context_dim"]):
            raise ValueError(f"context has shape {tuple(context.shape)}, expected "
                             f"({x.shape[0]}, tokens, {c['context_dim']})")
        if len(codes) != len(c["channels"]):
            raise ValueError(f"code has {len(codes)} entries, expected one for each of the "
                             f"{len(c['channels'])} levels")
        for z in codes:
            if z is not None and (c["code_dim"] is None
                                  or z.shape != (x.shape[0], c["code_dim"])):
                raise ValueError(f"code has shape {tuple(z.shape)}, expected "
                                 f"({x.shape[0]}, code_dim) with code_dim = {c['code_dim']}")
        if residuals is not None and len(residuals) != sum(c["encoder"]) + 1:
            raise ValueError(f"residuals has {len(residuals)} maps, expected "
                             f"{sum(c['encoder'])} (skips) + 1 (middle)")


def _check_sizes(channels: Sequence[int], encoder: Sequence[int], decoder: Sequence[int],
                 attention: Sequence[int], groups: int, unshuffle: int) -> None:
    levels = len(channels)
    for name, counts in (("encoder", encoder), ("decoder", decoder)):
        if len(counts) != levels or min(counts) < 0:
            raise ValueError(f"{name}={tuple(counts)}: expected one number for each of the "
                             f"{levels} levels")
    if any(d < e for e, d in zip(encoder, decoder, strict=True)):
        raise ValueError(f"decoder={tuple(decoder)}: expected at least encoder={tuple(encoder)}, "
                         "level by level, to take its skips")
    if groups < 1 or any(c < 1 or c % groups for c in channels):
        raise ValueError(f"channels={tuple(channels)}: expected multiples of groups={groups}")
    if not set(attention) <= set(range(levels)):
        raise ValueError(f"attention={tuple(attention)}: expected levels 0..{levels - 1}")
    if unshuffle < 1:
        raise ValueError(f"unshuffle={unshuffle}: expected a whole number >= 1")
