"""Answers to 01-2: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def walk(a, q, step, w0=0.0, dtype=None):
    m, w = [1.0], [w0]
    for a_t, q_t in zip(a.tolist(), q.tolist(), strict=True):
        m.append(a_t * m[-1])
        w.append(step(w[-1], a_t, q_t))
    return tuple(torch.tensor(k, dtype=dtype or a.dtype) for k in (m, w))


def right(a, q, dtype=None):
    return walk(a, q, lambda w, a, q: a**2 * w + q, dtype=dtype)


def wrong_unsquared(a, q):
    """what does that to its variance"""
    return walk(a, q, lambda w, a, q: a * w + q)


def wrong_sum(a, q):
    """variances do not just add up"""
    return walk(a, q, lambda w, a, q: w + q)


def wrong_q_squared(a, q):
    """q_t is a variance already"""
    return walk(a, q, lambda w, a, q: a**2 * w + q**2)


def wrong_order(a, q):
    """fresh noise comes in after the scaling"""
    return walk(a, q, lambda w, a, q: a**2 * (w + q))


def wrong_last_only(a, q):
    """only the last step's noise is left"""
    return walk(a, q, lambda w, a, q: q)


def wrong_diffusion(a, q):
    """the variance of a diffusion alone"""
    m, _ = right(a, q)
    return m, 1 - m**2


def wrong_start(a, q):
    """at level 0 nothing is random yet"""
    return walk(a, q, lambda w, a, q: a**2 * w + q, w0=1.0)


def wrong_abar(a, q):
    """a product of the a, not of their squares"""
    m, w = right(a, q)
    return m**2, w


def wrong_deviation(a, q):
    """w is a variance, and this is its square root"""
    m, w = right(a, q)
    return m, w.sqrt()


def wrong_swapped(a, q):
    """m and w have changed places"""
    m, w = right(a, q)
    return w, m


def wrong_short(a, q):
    """level 0 is missing"""
    m, w = right(a, q)
    return m[1:], w[1:]


def wrong_from_the_top(a, q):
    """walked from its top"""
    return right(a.flip(0), q.flip(0))


def wrong_one_step(a, q):
    """the product of all steps so far"""
    return torch.cat([a.new_ones(1), a]), right(a, q)[1]


def wrong_dtype(a, q):
    """their dtype is not that of a"""
    other = torch.float32 if a.dtype == torch.float64 else torch.float64
    return right(a, q, dtype=other)


def wrong_lists(a, q):
    """came list"""
    return tuple(k.tolist() for k in right(a, q))


def wrong_library(a, q):
    """refuses while your answer runs"""
    from coursekit.diffusion.mhvae import Chain

    return Chain(a.double(), q.double(), a.double(), q.double(), 1.0).encoded()


def right_lists(a, q):
    return right(a, q)


def right_vectors(a, q):
    m = torch.cat([a.new_ones(1), a.cumprod(0)])
    return m, m**2 * torch.cat([a.new_zeros(1), (q / m[1:] ** 2).cumsum(0)])


def right_in_place(a, q):
    m, w = a.new_ones(len(a) + 1), a.new_zeros(len(a) + 1)
    for t in range(1, len(a) + 1):
        m[t] = a[t - 1] * m[t - 1]
        w[t] = a[t - 1] ** 2 * w[t - 1] + q[t - 1]
    return m, w
