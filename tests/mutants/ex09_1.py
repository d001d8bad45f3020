"""Answers to 09-1: wrong_* must be told what their docstring says, right_* must pass."""

import math
from fractions import Fraction

import torch


def first(S, share):
    """How many of S hops a share holds."""
    return math.floor(share * S + 1e-9)


def opened(S, l, window, special, hops):
    """The matrix where hops(window) gives the hops of a window that are open."""
    out = torch.zeros(S, l, dtype=torch.bool)
    out[hops(window)] = True
    for tokens, ends in special:
        out[:, tokens] = False
        for j in tokens:
            out[hops(ends), j] = True
    return out


def by(count):
    """Hops from one count to the other."""
    return lambda S, l, window, special: opened(
        S, l, window, special, lambda ends: slice(count(S, ends[0]), count(S, ends[1])))


def right_slices(S, l, window, special):
    return by(first)(S, l, window, special)


def wrong_int(S, l, window, special):
    """falls just short of its whole number"""
    return by(lambda S, share: int(share * S))(S, l, window, special)


def wrong_nearest(S, l, window, special):
    """rounded to the nearest"""
    return by(lambda S, share: round(share * S))(S, l, window, special)


def wrong_up(S, l, window, special):
    """rounded up"""
    return by(lambda S, share: math.ceil(share * S - 1e-9))(S, l, window, special)


def wrong_inclusive(S, l, window, special):
    """one hop too many"""
    return opened(S, l, window, special,
                  lambda ends: slice(first(S, ends[0]), first(S, ends[1]) + 1))


def wrong_end(S, l, window, special):
    """counted from the clean end"""
    return right_slices(S, l, window, special).flip(0)


def wrong_added(S, l, window, special):
    """added to the common one"""
    out = torch.zeros(S, l, dtype=torch.bool)
    out[first(S, window[0]):first(S, window[1])] = True
    for tokens, (a, b) in special:
        out[first(S, a):first(S, b), tokens] = True
    return out


def wrong_no_special(S, l, window, special):
    """special has no effect"""
    return right_slices(S, l, window, [])


def wrong_no_start(S, l, window, special):
    """where a window opens has no effect"""
    return opened(S, l, window, special, lambda ends: slice(0, first(S, ends[1])))


def wrong_length(S, l, window, special):
    """not how long it is"""
    return opened(S, l, window, special, lambda ends: slice(
        first(S, ends[0]), first(S, ends[0]) + first(S, ends[1])))


def wrong_turned(S, l, window, special):
    """open and closed have changed places"""
    return ~right_slices(S, l, window, special)


def wrong_positions(S, l, window, special):
    """they count the start token"""
    return right_slices(S, l, window, [([j - 1 for j in tokens], ends) for tokens, ends in special])


def wrong_floats(S, l, window, special):
    """in a tensor of dtype bool"""
    return right_slices(S, l, window, special).float()


def wrong_transposed(S, l, window, special):
    """the two last axes are the other way round"""
    return right_slices(S, l, window, special).T


def wrong_library(S, l, window, special):
    """own refuses while your answer runs"""
    from coursekit.nets.injection import window as held

    return by(lambda S, share: held("share", share, S))(S, l, window, special)


def right_comparison(S, l, window, special):
    ends = torch.tensor([window] * l, dtype=torch.float64)
    for tokens, own in special:
        ends[tokens] = torch.tensor(own, dtype=torch.float64)
    a, b = (ends * S + 1e-7).floor().T
    i = torch.arange(S)[:, None]
    return (i >= a) & (i < b)


def right_fractions(S, l, window, special):
    own = {j: ends for tokens, ends in special for j in tokens}

    def held(share):
        return int(Fraction(share).limit_denominator(10**6) * S)

    return torch.tensor([[held(a) <= i < held(b) for a, b in (own.get(j, window)
                                                              for j in range(l))]
                         for i in range(S)])
