"""Answers to 09-3: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def walked(old, new, l, share=lambda a, b: 1 / b, paired=lambda a, b: a == b, start=1):
    """Words along two pointers, then end, padding and what is left; with parts to be altered."""
    R = torch.zeros(l, l)
    R[:start, :start] = torch.eye(start)
    i = j = start
    for a, b in zip(old, new, strict=True):
        if paired(a, b):
            for k in range(min(a, b)):
                R[i + k, j + k] = 1
        else:
            R[i:i + a, j:j + b] = share(a, b)
        i, j = i + a, j + b
    while i < l and j < l:
        R[i, j] = 1
        i, j = i + 1, j + 1
    R[i:, -1] = 1
    return R


def right_walk(old, new, l):
    return walked(old, new, l)


def right_groups(old, new, l):
    """Which piece each token belongs to, and its number in it."""
    def ranges(counts):
        ends = torch.tensor([1, *counts]).cumsum(0).tolist()
        return [range(b - a, b) for a, b in zip([1, *counts], ends, strict=True)]

    R = torch.zeros((l, l), dtype=torch.float32)
    for I, J in zip(ranges(old), ranges(new), strict=True):
        for i in I:
            for j in J:
                same = i - I[0] == j - J[0]
                R[i, j] = float(same) if len(I) == len(J) else 1 / len(J)
    s, t = sum(old) + 1, sum(new) + 1
    for k in range(l - s):
        R[s + k, min(t + k, l - 1)] = 1
    return R


def right_one_hot(old, new, l):
    rows = [[0]]
    j = 1
    for a, b in zip(old, new, strict=True):
        word = list(range(j, j + b))
        rows += [[p] for p in word] if a == b else [word] * a
        j += b
    rows += [[min(j + k, l - 1)] for k in range(l - len(rows))]
    hot = torch.nn.functional.one_hot
    return torch.stack([hot(torch.tensor(r), l).float().mean(0) for r in rows])


def wrong_official(old, new, l):
    """here the later words are counted along the target alone"""
    R = torch.zeros(l, l)
    last = max([k for k in range(len(old)) if old[k] != new[k]], default=-1)
    i = j = k = 0
    for k in range(-1, last + 1):
        a, b = (1, 1) if k < 0 else (old[k], new[k])
        R[i:i + a, j:j + b] = torch.eye(a) if a == b else 1 / b
        i, j = i + a, j + b
    while i < l and j < l:
        R[j, j] = 1
        i, j = i + 1, j + 1
    return R


def wrong_along_source(old, new, l):
    """here the later words are counted along the source alone"""
    R = torch.zeros(l, l)
    last = max([k for k in range(len(old)) if old[k] != new[k]], default=-1)
    i = j = 0
    for k in range(-1, last + 1):
        a, b = (1, 1) if k < 0 else (old[k], new[k])
        R[i:i + a, j:j + b] = torch.eye(a) if a == b else 1 / b
        i, j = i + a, j + b
    while i < l and j < l:
        R[i, i] = 1
        i, j = i + 1, j + 1
    return R


def wrong_identity(old, new, l):
    """this is the identity"""
    return torch.eye(l)


def wrong_transposed(old, new, l):
    """rows and columns have changed places"""
    return walked(old, new, l).T


def wrong_whole(old, new, l):
    """each new token takes all of the old word"""
    return walked(old, new, l, share=lambda a, b: 1)


def wrong_share_of_old(old, new, l):
    """divide by that of the new ones"""
    return walked(old, new, l, share=lambda a, b: 1 / a)


def wrong_share_of_both(old, new, l):
    """divided by both numbers"""
    return walked(old, new, l, share=lambda a, b: 1 / (a * b))


def wrong_first_token(old, new, l):
    """only the first new token gets something"""
    R = walked(old, new, l, share=lambda a, b: torch.tensor([1.0] + [0.0] * (b - 1)))
    return R


def wrong_one_to_one(old, new, l):
    """paired one to one, the rest left out"""
    return walked(old, new, l, paired=lambda a, b: True)


def wrong_spread(old, new, l):
    """words of as many tokens are spread, too"""
    return walked(old, new, l, paired=lambda a, b: False)


def wrong_no_start(old, new, l):
    """position 0 is the start token"""
    return walked(old, new, l, start=0)


def wrong_ends(old, new, l):
    """the start and the end stand for themselves"""
    R = walked(old, new, l)
    R[0] = 0
    R[sum(old) + 1] = 0
    return R


def wrong_no_padding(old, new, l):
    """the padding is left out"""
    R = walked(old, new, l)
    R[sum(old) + 2:] = 0
    return R


def wrong_surplus_lost(old, new, l):
    """padding that the source has more of goes nowhere"""
    R = walked(old, new, l)
    least = l - max(0, sum(new) - sum(old))
    R[least:] = 0
    return R


def wrong_padding_by_place(old, new, l):
    """padding is paired by its place"""
    R = walked(old, new, l)
    R[sum(old) + 2:] = 0
    for p in range(max(sum(old), sum(new)) + 2, l):
        R[p, p] = 1
    R[R.sum(1) == 0, -1] = 1
    return R


def wrong_all_to_the_last(old, new, l):
    """all padding goes to the last place"""
    R = walked(old, new, l)
    R[sum(old) + 2:] = 0
    R[sum(old) + 2:, -1] = 1
    return R


def wrong_end_in_padding(old, new, l):
    """the words are right, what follows them is not"""
    R = walked(old, new, l)
    R[sum(old) + 1:] = 0
    R[sum(old) + 1:, sum(new) + 1:] = 1 / (l - sum(new) - 1)
    return R


def wrong_double(old, new, l):
    """came float64 tensor"""
    return walked(old, new, l).double()


def wrong_library(old, new, l):
    """own refuses while your answer runs"""
    from types import SimpleNamespace

    from coursekit.nets.words import swap

    return swap(SimpleNamespace(), "a cat", "a dog").R
