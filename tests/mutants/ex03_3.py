"""Answers to 03-3: wrong_* must be told what their docstring says, right_* must pass."""

import torch
import torch.nn.functional as F
from torch import nn


class Base(nn.Module):
    zero, padding, bend = True, 1, staticmethod(F.silu)

    def __init__(self, channels, time_dim, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=self.padding)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=self.padding)
        self.time = nn.Linear(time_dim, 2 * channels)
        if self.zero:
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)

    def timed(self, y, emb):
        scale, shift = self.time(emb)[:, :, None, None].chunk(2, 1)
        return y * (1 + scale) + shift

    def forward(self, x, emb):
        y = self.conv1(self.bend(self.norm1(x)))
        return x + self.conv2(self.bend(self.timed(self.norm2(y), emb)))


class wrong_no_skip(Base):
    """x is not added"""

    def forward(self, x, emb):
        return super().forward(x, emb) - x


class wrong_no_bends(Base):
    """both silu are missing"""

    bend = staticmethod(lambda h: h)


class wrong_no_first_bend(Base):
    """the first silu is missing"""

    def forward(self, x, emb):
        y = self.conv1(self.norm1(x))
        return x + self.conv2(F.silu(self.timed(self.norm2(y), emb)))


class wrong_no_second_bend(Base):
    """the second silu is missing"""

    def forward(self, x, emb):
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(self.timed(self.norm2(y), emb))


class wrong_relu(Base):
    """another bend than silu"""

    bend = staticmethod(F.relu)


class wrong_early(Base):
    """the time comes in at norm1"""

    def forward(self, x, emb):
        y = self.conv1(F.silu(self.timed(self.norm1(x), emb)))
        return x + self.conv2(F.silu(self.norm2(y)))


class wrong_late(Base):
    """after conv2"""

    def forward(self, x, emb):
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.timed(self.conv2(F.silu(self.norm2(y))), emb)


class wrong_blind(Base):
    """the time has no effect"""

    def forward(self, x, emb):
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class wrong_not_zero(Base):
    """starts at zero"""

    zero = False


class wrong_bias_not_zero(Base):
    """starts at zero, its weight and its bias"""

    zero = False

    def __init__(self, channels, time_dim, groups):
        super().__init__(channels, time_dim, groups)
        nn.init.zeros_(self.conv2.weight)


class wrong_not_padded(Base):
    """padded by one"""

    padding = 0


class wrong_names(Base):
    """are the layers' names"""

    def __init__(self, channels, time_dim, groups):
        super().__init__(channels, time_dim, groups)
        self.projection = self.time
        del self.time

    def timed(self, y, emb):
        scale, shift = self.projection(emb)[:, :, None, None].chunk(2, 1)
        return y * (1 + scale) + shift


class wrong_no_super(nn.Module):
    """super().__init__()"""

    def __init__(self, channels, time_dim, groups):
        self.norm1 = nn.GroupNorm(groups, channels)


class wrong_no_layers(nn.Module):
    """layers are made in __init__"""

    def __init__(self, channels, time_dim, groups):
        super().__init__()

    def forward(self, x, emb):
        return x + self.conv1(F.silu(self.norm1(x)))


class wrong_no_forward(nn.Module):
    """is not there, or under another name"""

    def __init__(self, channels, time_dim, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)


def wrong_library(channels, time_dim, groups):
    """refuses while your answer runs"""
    from coursekit.nets.unet import ResBlock

    class Mine(ResBlock):
        def forward(self, x, emb):
            return super().forward(x, emb, None)

    return Mine(channels, groups, time_dim, None, 0.0)


class right_plain(Base):
    pass


class right_parts(nn.Module):
    def __init__(self, channels, time_dim, groups):
        super().__init__()
        self.channels = channels
        self.time = nn.Linear(time_dim, channels * 2)
        for i in (1, 2):
            setattr(self, f"conv{i}", nn.Conv2d(channels, channels, (3, 3), padding="same"))
            setattr(self, f"norm{i}", nn.GroupNorm(groups, channels))
        for p in self.conv2.parameters():
            p.data.zero_()

    def forward(self, x, emb):
        code = self.time(emb)
        y = self.norm1(x)
        y = self.conv1(y * y.sigmoid())
        y = torch.einsum("bchw,bc->bchw", self.norm2(y), 1 + code[:, : self.channels])
        y = y + code[:, self.channels :].unsqueeze(-1).unsqueeze(-1)
        return torch.add(self.conv2(y * torch.sigmoid(y)), x)
