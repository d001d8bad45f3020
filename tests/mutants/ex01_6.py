"""Answers to 01-6: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def kl(square, var_q, var_p):
    ratio = var_q / var_p
    return (ratio - 1 - ratio.log() + square / var_p) / 2


def known(x, a, q, c, p, v):
    """E z_t^2 (T+1, n), m and w, the decoder's variances V (T+1)."""
    m, w = [torch.ones_like(a[0])], [torch.zeros_like(a[0])]
    for a_t, q_t in zip(a, q, strict=True):
        m.append(a_t * m[-1])
        w.append(a_t**2 * w[-1] + q_t)
    V = [torch.as_tensor(v, dtype=x.dtype)]
    for t in range(len(a), 0, -1):
        V.insert(0, c[t - 1] ** 2 * V[0] + p[t - 1])
    m, w, V = map(torch.stack, (m, w, V))
    return m[:, None] ** 2 * x**2 + w[:, None], m[:, None], w[:, None], V


def rows(z_square, a, q, A, Q):
    return kl((a - A)[:, None] ** 2 * z_square, q[:, None], Q[:, None])


def right(x, a, q, c, p, v):
    z_square, _, _, V = known(x, a, q, c, p, v)
    return rows(z_square[:-1], a, q, c * V[1:] / V[:-1], p * V[1:] / V[:-1])


def wrong_step_down(x, a, q, c, p, v):
    """the decoder's step down stands where its step up should"""
    return rows(known(x, a, q, c, p, v)[0][:-1], a, q, c, p)


def wrong_slope(x, a, q, c, p, v):
    """the slope of the decoder's step up is still c"""
    z_square, _, _, V = known(x, a, q, c, p, v)
    return rows(z_square[:-1], a, q, c, p * V[1:] / V[:-1])


def wrong_variance(x, a, q, c, p, v):
    """the variance of the decoder's step up is still p"""
    z_square, _, _, V = known(x, a, q, c, p, v)
    return rows(z_square[:-1], a, q, c * V[1:] / V[:-1], p)


def wrong_swapped(x, a, q, c, p, v):
    """have changed places"""
    z_square, _, _, V = known(x, a, q, c, p, v)
    return rows(z_square[:-1], a, q, c * V[:-1] / V[1:], p * V[:-1] / V[1:])


def wrong_always_v(x, a, q, c, p, v):
    """carry it down, level by level"""
    below = c**2 * v + p
    return rows(known(x, a, q, c, p, v)[0][:-1], a, q, c * v / below, p * v / below)


def wrong_no_variance(x, a, q, c, p, v):
    """the encoder's z_{t-1} has a variance"""
    _, m, _, V = known(x, a, q, c, p, v)
    square = (m * x)[:-1] ** 2
    return rows(square, a, q, c * V[1:] / V[:-1], p * V[1:] / V[:-1])


def wrong_no_mean(x, a, q, c, p, v):
    """the encoder's z_{t-1} has a mean"""
    _, _, w, V = known(x, a, q, c, p, v)
    square = (w + 0 * x)[:-1]
    return rows(square, a, q, c * V[1:] / V[:-1], p * V[1:] / V[:-1])


def wrong_level_above(x, a, q, c, p, v):
    """both steps up start from z_{t-1}"""
    z_square, _, _, V = known(x, a, q, c, p, v)
    return rows(z_square[1:], a, q, c * V[1:] / V[:-1], p * V[1:] / V[:-1])


def wrong_expectation(x, a, q, c, p, v):
    """the expectation is over the encoder"""
    V = known(x, a, q, c, p, v)[3]
    square = V[:-1, None] + 0 * x
    return rows(square, a, q, c * V[1:] / V[:-1], p * V[1:] / V[:-1])


def wrong_always_x(x, a, q, c, p, v):
    """x stands in the place of z_{t-1}"""
    V = known(x, a, q, c, p, v)[3]
    return rows(x**2, a, q, c * V[1:] / V[:-1], p * V[1:] / V[:-1])


def wrong_direction(x, a, q, c, p, v):
    """taken the other way round"""
    z_square, _, _, V = known(x, a, q, c, p, v)
    A, Q = c * V[1:] / V[:-1], p * V[1:] / V[:-1]
    return kl((a - A)[:, None] ** 2 * z_square[:-1], Q[:, None], q[:, None])


def wrong_upside_down(x, a, q, c, p, v):
    """the rows run from the top down"""
    return right(x, a, q, c, p, v).flip(0)


def wrong_summed(x, a, q, c, p, v):
    """a row for each is asked for"""
    return right(x, a, q, c, p, v).sum(0)


def wrong_transposed(x, a, q, c, p, v):
    """the two last axes are the other way round"""
    return right(x, a, q, c, p, v).T


def wrong_sign(x, a, q, c, p, v):
    """the sign is the other way round"""
    return -right(x, a, q, c, p, v)


def wrong_variances_differ(x, a, q, c, p, v):
    """a KL divergence is never negative"""
    z_square, _, _, V = known(x, a, q, c, p, v)
    A, Q = c * V[1:] / V[:-1], p * V[1:] / V[:-1]
    return ((a - A)[:, None] ** 2 * z_square[:-1] + (q - Q)[:, None] - 1) / Q[:, None] / 2


def wrong_library(x, a, q, c, p, v):
    """refuses while your answer runs"""
    from coursekit.diffusion.mhvae import Chain

    chain = Chain(*(k.double() for k in (a, q, c, p)), v)
    whole = chain.log_evidence(x.double()) - chain.telescoped(x.double()).total
    return whole.to(x.dtype).expand(len(a), -1)


def right_rows(x, a, q, c, p, v):
    return right(x, a, q, c, p, v)


def right_precisions(x, a, q, c, p, v):
    """The step up by Bayes: prior N(0, V_t) on z_t, likelihood p(z_{t-1} | z_t)."""
    m, w, out = 1.0, 0.0, []
    V = [torch.as_tensor(v, dtype=x.dtype)]
    for t in reversed(range(1, len(a))):
        V.append(c[t] ** 2 * V[-1] + p[t])
    for t, above in enumerate(reversed(V)):
        Q = 1 / (1 / above + c[t] ** 2 / p[t])
        A = Q * c[t] / p[t]
        out.append(kl((a[t] - A) ** 2 * ((m * x) ** 2 + w), q[t], Q))
        m, w = a[t] * m, a[t] ** 2 * w + q[t]
    return torch.stack(out)


def right_torch(x, a, q, c, p, v):
    from torch.distributions import Normal, kl_divergence

    z_square, _, _, V = known(x, a, q, c, p, v)
    A, Q = c * V[1:] / V[:-1], p * V[1:] / V[:-1]
    far = (a - A)[:, None].abs() * z_square[:-1].sqrt()
    return kl_divergence(Normal(far, q[:, None].sqrt()),
                         Normal(torch.zeros_like(far), Q[:, None].sqrt()))
