"""Answers to 01-3: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def levels(a, q):
    m, w = [1.0], [0.0]
    for a_t, q_t in zip(a.tolist(), q.tolist(), strict=True):
        m.append(a_t * m[-1])
        w.append(a_t**2 * w[-1] + q_t)
    return torch.tensor(m, dtype=a.dtype), torch.tensor(w, dtype=a.dtype)


def right(a, q):
    m, w = levels(a, q)
    return a[1:] * w[1:-1] / w[2:], q[1:] * m[1:-1] / w[2:], w[1:-1] * q[1:] / w[2:]


def wrong_variance_up(a, q):
    """that of the step up"""
    return *right(a, q)[:2], q[1:]


def wrong_variance_before(a, q):
    """before z_t is seen"""
    return *right(a, q)[:2], levels(a, q)[1][1:-1]


def wrong_deviation(a, q):
    """this is its square root"""
    k, g, var = right(a, q)
    return k, g, var.sqrt()


def wrong_undivided(a, q):
    """the first two are not divided by w_t"""
    m, w = levels(a, q)
    return a[1:] * w[1:-1], q[1:] * m[1:-1], right(a, q)[2]


def wrong_all_undivided(a, q):
    """nothing is divided by w_t"""
    w = levels(a, q)[1][2:]
    return tuple(v * w for v in right(a, q))


def wrong_divided_below(a, q):
    """divided by w of t - 1"""
    w = levels(a, q)[1]
    return tuple(v * w[2:] / w[1:-1] for v in right(a, q))


def wrong_no_a(a, q):
    """a_t is missing"""
    k, g, var = right(a, q)
    return k / a[1:], g, var


def wrong_w_swapped(a, q):
    """w of t and of t - 1 have changed places"""
    w, (_, g, var) = levels(a, q)[1], right(a, q)
    return a[1:] * w[2:] / w[1:-1], g, var


def wrong_m_above(a, q):
    """what multiplies x takes m of t"""
    (m, w), (k, _, var) = levels(a, q), right(a, q)
    return k, q[1:] * m[2:] / w[2:], var


def wrong_q_below(a, q):
    """what multiplies x takes q of t - 1"""
    (m, w), (k, _, var) = levels(a, q), right(a, q)
    return k, q[:-1] * m[1:-1] / w[2:], var


def wrong_no_witness(a, q):
    """x has no say"""
    k, g, var = right(a, q)
    return k, torch.zeros_like(g), var


def wrong_swapped(a, q):
    """the first two have changed places"""
    k, g, var = right(a, q)
    return g, k, var


def wrong_numbers_below(a, q):
    """a and q of t - 1 are used"""
    m, w = levels(a, q)
    return a[:-1] * w[1:-1] / w[2:], q[:-1] * m[1:-1] / w[2:], w[1:-1] * q[:-1] / w[2:]


def wrong_from_one(a, q):
    """t begins at 2"""
    m, w = levels(a, q)
    return a * w[:-1] / w[1:], q * m[:-1] / w[1:], w[:-1] * q / w[1:]


def wrong_dtype(a, q):
    """their dtype is not that of a"""
    other = torch.float32 if a.dtype == torch.float64 else torch.float64
    return tuple(v.to(other) for v in right(a, q))


def wrong_two(a, q):
    """came tuple of 2, wanted tuple of 3"""
    return right(a, q)[:2]


def wrong_library(a, q):
    """refuses while your answer runs"""
    from coursekit.diffusion.mhvae import Chain

    m, w = Chain(a.double(), q.double(), a.double(), q.double(), 1.0).encoded()
    return a[1:] * w[1:-1] / w[2:], q[1:] * m[1:-1] / w[2:], w[1:-1] * q[1:] / w[2:]


def right_slices(a, q):
    return right(a, q)


def right_precisions(a, q):
    m, w = levels(a, q)
    var = (a[1:] ** 2 / q[1:] + 1 / w[1:-1]).reciprocal()
    return var * a[1:] / q[1:], var * m[1:-1] / w[1:-1], var


def right_gain(a, q):
    """As a Kalman filter does it: the guess from x, then corrected by z_t."""
    (m, w), rows = levels(a, q), []
    for t in range(2, len(a) + 1):
        gain = a[t - 1] * w[t - 1] / w[t]
        share = 1 - gain * a[t - 1]
        rows.append(torch.stack([gain, share * m[t - 1], share * w[t - 1]]))
    k, g, var = torch.stack(rows, 1)
    return k, g, var
