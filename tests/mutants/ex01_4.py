"""Answers to 01-4: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def kl(square, var_q, var_p):
    return (var_q / var_p - 1 - (var_q / var_p).log() + square / var_p) / 2


def columns(a, q, c, p):
    """m, w of all levels; k, g, var, c, p of t = 2..T."""
    m, w = [1.0], [0.0]
    for a_t, q_t in zip(a.tolist(), q.tolist(), strict=True):
        m.append(a_t * m[-1])
        w.append(a_t**2 * w[-1] + q_t)
    m, w = (torch.tensor(v, dtype=a.dtype)[:, None] for v in (m, w))
    a, q, c, p = (v[1:, None] for v in (a, q, c, p))
    return m, w, a * w[1:-1] / w[2:], q * m[1:-1] / w[2:], w[1:-1] * q / w[2:], c, p


def right(x, a, q, c, p):
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[2:] + g) ** 2 * x**2 + (k - c) ** 2 * w[2:], var, p)


def wrong_no_variance(x, a, q, c, p):
    """z_t has a variance"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[2:] + g) ** 2 * x**2, var, p)


def wrong_no_mean(x, a, q, c, p):
    """z_t has a mean"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(g**2 * x**2 + (k - c) ** 2 * w[2:], var, p)


def wrong_no_witness(x, a, q, c, p):
    """told by x is missing"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[2:]) ** 2 * x**2 + (k - c) ** 2 * w[2:], var, p)


def wrong_level_below(x, a, q, c, p):
    """drawn at its own level"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[1:-1] + g) ** 2 * x**2 + (k - c) ** 2 * w[1:-1], var, p)


def wrong_decoder_below(x, a, q, c, p):
    """the decoder's numbers are those of t - 1"""
    m, w, k, g, var, _, _ = columns(a, q, c, p)
    c, p = c[:-1, None], p[:-1, None]
    return kl(((k - c) * m[2:] + g) ** 2 * x**2 + (k - c) ** 2 * w[2:], var, p)


def wrong_direction(x, a, q, c, p):
    """taken the other way round"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[2:] + g) ** 2 * x**2 + (k - c) ** 2 * w[2:], p, var)


def wrong_means_alone(x, a, q, c, p):
    """the two variances differ, too"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return (((k - c) * m[2:] + g) ** 2 * x**2 + (k - c) ** 2 * w[2:]) / (2 * p)


def wrong_equal_variances(x, a, q, c, p):
    """the two variances differ, too"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[2:] + g) ** 2 * x**2 + (k - c) ** 2 * w[2:], p, p)


def wrong_w_squared(x, a, q, c, p):
    """w is a variance already"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[2:] + g) ** 2 * x**2 + ((k - c) * w[2:]) ** 2, var, p)


def wrong_squares(x, a, q, c, p):
    """kl asks for a squared distance"""
    m, w, k, g, var, c, p = columns(a, q, c, p)
    return kl(((k - c) * m[2:] + g) * x, var, p)


def wrong_printed(x, a, q, c, p):
    """the step back that knows x is not used"""
    m, w, _, _, _, c, p = columns(a, q, c, p)
    up, now, q, before = a[:-1, None], a[1:, None], q[:-1, None], w[:-2]
    both = now * up  # from z_{t-2} to z_t
    rest = w[2:] - both**2 * before
    square = (up - c * both) ** 2 * (m[:-2] ** 2 * x**2 + before) + c**2 * rest
    return kl(square, q, p)


def wrong_summed(x, a, q, c, p):
    """a row for each is asked for"""
    return right(x, a, q, c, p).sum(0)


def wrong_transposed(x, a, q, c, p):
    """the other way round"""
    return right(x, a, q, c, p).T


def wrong_from_one(x, a, q, c, p):
    """t begins at 2"""
    return torch.cat([torch.zeros_like(x)[None], right(x, a, q, c, p)])


def wrong_doubled(x, a, q, c, p):
    """off by one and the same factor"""
    return 2 * right(x, a, q, c, p)


def wrong_library(x, a, q, c, p):
    """refuses while your answer runs"""
    from coursekit.diffusion.mhvae import Chain

    return Chain(*(v.double() for v in (a, q, c, p)), 1.0).telescoped(x.double()).inner.to(x.dtype)


def wrong_library_kl(x, a, q, c, p):
    """refuses while your answer runs"""
    from coursekit.diffusion.mhvae import gaussian_kl

    m, w, k, g, var, c, p = columns(a, q, c, p)
    return gaussian_kl(((k - c) * m[2:] + g) ** 2 * x**2 + (k - c) ** 2 * w[2:], var, p)


def right_columns(x, a, q, c, p):
    return right(x, a, q, c, p)


def right_loop(x, a, q, c, p):
    m, w, k, g, var, c, p = columns(a, q, c, p)
    rows = []
    for t in range(2, len(a) + 1):
        i = t - 2
        mean = k[i] * m[t] * x + g[i] * x - c[i] * m[t] * x
        rows.append(kl(mean**2 + (k[i] - c[i]) ** 2 * w[t], var[i], p[i]))
    return torch.stack(rows)


def right_second_moment(x, a, q, c, p):
    m, w, k, g, var, c, p = columns(a, q, c, p)
    d, z_square = k - c, m[2:] ** 2 * x**2 + w[2:]
    square = d**2 * z_square + 2 * d * g * m[2:] * x**2 + g**2 * x**2
    return kl(square, var, p)
