"""Answers to 04-2: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def wrong_number(source, t0, target):
    """the same number is another noise"""
    return t0


def wrong_share(source, t0, target):
    """the share of the way was kept"""
    return round(t0 / source.T * target.T)


def wrong_table_without_zero(source, t0, target):
    """off by one"""
    return int((target.abar[1:] - source.level(t0)).abs().argmin())


def wrong_swapped(source, t0, target):
    """source and target have changed places"""
    return int((source.abar - target.level(t0)).abs().argmin())


def wrong_first_below(source, t0, target):
    """the noisier of two neighbours"""
    return int((target.abar > source.level(t0)).sum())


def wrong_last_above(source, t0, target):
    """the cleaner of two neighbours"""
    return max(t for t in range(target.T + 1) if target.level(t) >= source.level(t0))


def wrong_level(source, t0, target):
    """the level itself came back"""
    return source.level(t0)


def wrong_sigma(source, t0, target):
    """another measure was compared"""
    want = (1 / source.level(t0) - 1) ** 0.5
    return int(((1 / target.abar - 1).sqrt() - want).abs().argmin())


def wrong_log(source, t0, target):
    """another measure was compared"""
    return int((target.abar.log() - source.abar[t0].log()).abs().argmin())


def wrong_signed(source, t0, target):
    """without abs"""
    return int((source.level(t0) - target.abar).argmin())


def wrong_farthest(source, t0, target):
    """the level farthest away"""
    return target.T


def wrong_tensor(source, t0, target):
    """int(..) makes one of a tensor"""
    return (target.abar - source.abar[t0]).abs().argmin()


def right_table(source, t0, target):
    return int((target.abar - source.level(t0)).abs().argmin())


def right_search(source, t0, target):
    want, t = source.level(t0), 0
    while t < target.T and abs(target.level(t + 1) - want) < abs(target.level(t) - want):
        t += 1
    return t


def right_sorted(source, t0, target):
    gaps = torch.abs(torch.subtract(target.abar, source.abar[t0]))
    return torch.argsort(gaps, stable=True).tolist()[0]
