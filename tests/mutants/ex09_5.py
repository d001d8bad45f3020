"""Answers to 09-5: wrong_* must be told what their docstring says, right_* must pass."""

import torch
import torch.nn.functional as F


def widened(M):
    return F.max_pool2d(M[:, None], 3, stride=1, padding=1)


def large(x, z):
    return F.interpolate(x, z.shape[2:], mode="nearest")


def above(wide, k):
    return wide > k * wide.amax((1, 2, 3), keepdim=True)


def mixed(mask, z, z_target):
    return mask, torch.where(mask, z_target, z)


def by(side, z, z_target, M, M_target, k):
    """The answer with side(M) -> mask (b, 1, h, w)."""
    return mixed(side(M) | side(M_target), z, z_target)


def right_plain(z, z_target, M, M_target, k):
    return by(lambda m: above(large(widened(m), z), k), z, z_target, M, M_target, k)


def right_mask_first(z, z_target, M, M_target, k):
    """Threshold first, then spread what is above it; mixed by arithmetic."""
    def side(m):
        lit = (m / m.amax((1, 2), keepdim=True) > k).to(m.dtype)
        return large(widened(lit), z) > 0.5

    mask = side(M) | side(M_target)
    a = mask.to(z.dtype)
    return mask, z + a * (z_target - z)


def right_windows(z, z_target, M, M_target, k):
    def side(m):
        h, w = m.shape[1:]
        windows = F.unfold(F.pad(m[:, None], (1, 1, 1, 1)), 3).amax(1).view(-1, h, w)
        lit = torch.stack([row > k * row.max() for row in windows])
        n = z.shape[3] // w
        return lit.repeat_interleave(n, 1).repeat_interleave(n, 2).unsqueeze(1)

    mask = torch.logical_or(side(M), side(M_target))
    out = z.clone()
    here = mask.expand_as(z)
    out[here] = z_target[here]
    return mask, out


def wrong_not_spread(z, z_target, M, M_target, k):
    """the maps are not spread"""
    return by(lambda m: above(large(m[:, None], z), k), z, z_target, M, M_target, k)


def wrong_spread_late(z, z_target, M, M_target, k):
    """spread after they were enlarged"""
    return by(lambda m: above(F.max_pool2d(large(m[:, None], z), 3, 1, 1), k), z, z_target, M,
              M_target, k)


def wrong_spread_far(z, z_target, M, M_target, k):
    """spread too far"""
    return by(lambda m: above(large(F.max_pool2d(m[:, None], 5, 1, 2), z), k), z, z_target, M,
              M_target, k)


def wrong_average(z, z_target, M, M_target, k):
    """the neighbours are averaged"""
    return by(lambda m: above(large(F.avg_pool2d(m[:, None], 3, 1, 1), z), k), z, z_target, M,
              M_target, k)


def wrong_smooth(z, z_target, M, M_target, k):
    """enlarged smoothly"""
    return by(lambda m: above(F.interpolate(widened(m), z.shape[2:], mode="bilinear"), k), z,
              z_target, M, M_target, k)


def wrong_value(z, z_target, M, M_target, k):
    """not a value"""
    return by(lambda m: large(widened(m), z) > k, z, z_target, M, M_target, k)


def wrong_mean(z, z_target, M, M_target, k):
    """not of the mean"""
    def side(m):
        wide = widened(m)
        return large((wide > k * wide.mean((2, 3), keepdim=True)).to(z), z) > 0
    return by(side, z, z_target, M, M_target, k)


def wrong_batch(z, z_target, M, M_target, k):
    """that of the whole batch"""
    return by(lambda m: large(widened(m), z) > k * m.max(), z, z_target, M, M_target, k)


def wrong_at_the_threshold(z, z_target, M, M_target, k):
    """above it, not from it on"""
    def side(m):
        wide = large(widened(m), z)
        return wide >= k * wide.amax((2, 3), keepdim=True)
    return by(side, z, z_target, M, M_target, k)


def wrong_and(z, z_target, M, M_target, k):
    """for one of them is enough"""
    mask = above(large(widened(M), z), k) & above(large(widened(M_target), z), k)
    return mixed(mask, z, z_target)


def wrong_source_alone(z, z_target, M, M_target, k):
    """only the source's map is used"""
    return mixed(above(large(widened(M), z), k), z, z_target)


def wrong_target_alone(z, z_target, M, M_target, k):
    """only the target's map is used"""
    return mixed(above(large(widened(M_target), z), k), z, z_target)


def wrong_sum(z, z_target, M, M_target, k):
    """added before they meet the threshold"""
    return mixed(above(large(widened(M + M_target), z), k), z, z_target)


def wrong_turned(z, z_target, M, M_target, k):
    """the mask is turned about"""
    mask, _ = right_plain(z, z_target, M, M_target, k)
    return ~mask, torch.where(mask, z_target, z)


def wrong_mixed_turned(z, z_target, M, M_target, k):
    """mixed the wrong way round"""
    mask, _ = right_plain(z, z_target, M, M_target, k)
    return mask, torch.where(mask, z, z_target)


def wrong_target_untouched(z, z_target, M, M_target, k):
    """the latents are the target's as they came"""
    return right_plain(z, z_target, M, M_target, k)[0], z_target.clone()


def wrong_zero(z, z_target, M, M_target, k):
    """what lies outside of it is zero"""
    mask, _ = right_plain(z, z_target, M, M_target, k)
    return mask, mask * z_target


def wrong_added_target(z, z_target, M, M_target, k):
    """the target is added to the source"""
    mask, _ = right_plain(z, z_target, M, M_target, k)
    return mask, z + mask * z_target


def wrong_floats(z, z_target, M, M_target, k):
    """in a mask of dtype bool"""
    mask, out = right_plain(z, z_target, M, M_target, k)
    return mask.to(z.dtype), out


def wrong_channels(z, z_target, M, M_target, k):
    """the mask has one channel"""
    mask, out = right_plain(z, z_target, M, M_target, k)
    return mask.expand_as(z), out


def wrong_mask_alone(z, z_target, M, M_target, k):
    """two things are returned"""
    return right_plain(z, z_target, M, M_target, k)[0]


def wrong_library(z, z_target, M, M_target, k):
    """own refuses while your answer runs"""
    from coursekit.nets.blend import blend_mask

    return by(lambda m: blend_mask(m, z.shape[2:], k), z, z_target, M, M_target, k)
