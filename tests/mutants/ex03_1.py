"""Answers to 03-1: wrong_* must be told what their docstring says, right_* must pass."""

import math

import numpy as np
import torch


def build(t, dim, over=None, sign=-1, turn=1.0):
    half = dim // 2
    speed = 10_000.0 ** (sign * torch.arange(half) / (over or half))
    angle = turn * t.float()[:, None] * speed
    return angle


def wrong_sines_first(t, dim):
    """sines and cosines have changed places"""
    angle = build(t, dim)
    return torch.cat([angle.sin(), angle.cos()], 1)


def wrong_interwoven(t, dim):
    """interwoven"""
    angle = build(t, dim)
    return torch.stack([angle.cos(), angle.sin()], 2).flatten(1)


def wrong_minus_one(t, dim):
    """not by n - 1"""
    angle = build(t, dim, max(1, dim // 2 - 1))
    return torch.cat([angle.cos(), angle.sin()], 1)


def wrong_by_dim(t, dim):
    """divided by dim"""
    angle = build(t, dim, dim)
    return torch.cat([angle.cos(), angle.sin()], 1)


def wrong_faster(t, dim):
    """the exponent must be negative"""
    angle = build(t.double(), dim, sign=1)
    angle = t.double()[:, None] * 10_000.0 ** (torch.arange(dim // 2).double() / (dim // 2))
    return torch.cat([angle.cos(), angle.sin()], 1).float()


def wrong_unit(t, dim):
    """divided by T"""
    angle = build(t / 1000, dim)
    return torch.cat([angle.cos(), angle.sin()], 1)


def wrong_from_zero(t, dim):
    """counted from 0"""
    angle = build(t - 1, dim)
    return torch.cat([angle.cos(), angle.sin()], 1)


def wrong_whole_turns(t, dim):
    """without 2 pi"""
    angle = 2 * math.pi * build(t, dim)
    return torch.cat([angle.cos(), angle.sin()], 1)


def wrong_half(t, dim):
    """only half is there"""
    return build(t, dim).cos()


def wrong_stacked(t, dim):
    """stand side by side"""
    angle = build(t, dim)
    return torch.stack([angle.cos(), angle.sin()], 1)


def wrong_float64(t, dim):
    """dtype"""
    angle = build(t, dim).double()
    return torch.cat([angle.cos(), angle.sin()], 1)


def wrong_axes(t, dim):
    """one of the two needs an axis of length one"""
    angle = t * 10_000.0 ** (-torch.arange(dim // 2 + 7) / (dim // 2))
    return torch.cat([angle.cos(), angle.sin()])


def wrong_library(t, dim):
    """refuses while your answer runs"""
    from coursekit.nets.unet import time_embedding

    return time_embedding(t, dim)


def right_outer(t, dim):
    n = dim // 2
    angle = torch.outer(t.double(), torch.tensor([1e4 ** (-k / n) for k in range(n)]).double())
    return torch.cat((torch.cos(angle), torch.sin(angle)), -1).float()


def right_exp(t, dim):
    n = dim // 2
    speed = torch.exp(torch.arange(n, dtype=torch.float32) * (-math.log(10_000) / n))
    out = torch.empty(len(t), dim)
    out[:, :n], out[:, n:] = (t.unsqueeze(1) * speed).cos(), (t.unsqueeze(1) * speed).sin()
    return out


def right_numpy(t, dim):
    angle = t.numpy()[:, None] / 10_000 ** (np.arange(dim // 2) / (dim // 2))
    return torch.from_numpy(np.concatenate([np.cos(angle), np.sin(angle)], 1)).float()
