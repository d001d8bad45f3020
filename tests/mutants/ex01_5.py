"""Answers to 01-5: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def kl(square, var_q, var_p):
    ratio = var_q / var_p
    return (ratio - 1 - ratio.log() + square / var_p) / 2


def density(square, var):
    return -((2 * math.pi * var).log() + square / var) / 2


def parts(x, a, q, c, p, v):
    """The reconstruction, the distance to the prior and the matching terms; m, w of the top."""
    m, w = [torch.ones_like(a[0])], [torch.zeros_like(a[0])]
    for a_t, q_t in zip(a, q, strict=True):
        m.append(a_t * m[-1])
        w.append(a_t**2 * w[-1] + q_t)
    terms = []
    for t in range(2, len(a) + 1):
        k, g = a[t - 1] * w[t - 1] / w[t], q[t - 1] * m[t - 1] / w[t]
        off = k - c[t - 1]
        square = (off * m[t] + g) ** 2 * x**2 + off**2 * w[t]
        terms.append(kl(square, w[t - 1] * q[t - 1] / w[t], p[t - 1]))
    first = density((1 - c[0] * a[0]) ** 2 * x**2 + c[0] ** 2 * q[0], p[0])
    return first, kl(m[-1] ** 2 * x**2, w[-1], v), torch.stack(terms), m[-1], w[-1]


def right(x, a, q, c, p, v):
    first, top, terms, _, _ = parts(x, a, q, c, p, v)
    return first - top - terms.sum(0)


def with_guess(first):
    """The bound with another reconstruction."""
    def answer(x, a, q, c, p, v):
        return right(x, a, q, c, p, v) - parts(x, a, q, c, p, v)[0] + first(
            x, a[0], q[0], c[0], p[0])
    return answer


def with_top(top):
    def answer(x, a, q, c, p, v):
        _, old, _, m, w = parts(x, a, q, c, p, v)
        return right(x, a, q, c, p, v) + old - top(x, m, w, v)
    return answer


def wrong_no_prior(x, a, q, c, p, v):
    """the distance of the top to the prior is missing"""
    first, _, terms, _, _ = parts(x, a, q, c, p, v)
    return first - terms.sum(0)


def wrong_no_matching(x, a, q, c, p, v):
    """the matching terms are missing"""
    first, top, _, _, _ = parts(x, a, q, c, p, v)
    return first - top


def wrong_no_reconstruction(x, a, q, c, p, v):
    """the reconstruction is missing"""
    _, top, terms, _, _ = parts(x, a, q, c, p, v)
    return -top - terms.sum(0)


def wrong_matching_added(x, a, q, c, p, v):
    """the matching terms are to be taken off"""
    first, top, terms, _, _ = parts(x, a, q, c, p, v)
    return first - top + terms.sum(0)


def wrong_prior_added(x, a, q, c, p, v):
    """the distance to the prior is to be taken off"""
    first, top, terms, _, _ = parts(x, a, q, c, p, v)
    return first + top - terms.sum(0)


def wrong_all_added(x, a, q, c, p, v):
    """both kinds are to be taken off"""
    first, top, terms, _, _ = parts(x, a, q, c, p, v)
    return first + top + terms.sum(0)


def wrong_mean(x, a, q, c, p, v):
    """averaged over the levels"""
    first, top, terms, _, _ = parts(x, a, q, c, p, v)
    return first - top - terms.mean(0)


def wrong_loss(x, a, q, c, p, v):
    """the bound has the other sign"""
    return -right(x, a, q, c, p, v)


def wrong_no_variance(x, a, q, c, p, v):
    """z_1 has a variance"""
    return with_guess(lambda x, a, q, c, p: density((x - c * a * x) ** 2, p))(x, a, q, c, p, v)


def wrong_plain_square(x, a, q, c, p, v):
    """its normalising constant is missing"""
    return with_guess(lambda x, a, q, c, p: -((x - c * a * x) ** 2 + c**2 * q) / (2 * p))(
        x, a, q, c, p, v)


def wrong_no_two_pi(x, a, q, c, p, v):
    """a part of its constant is missing"""
    return right(x, a, q, c, p, v) + math.log(2 * math.pi) / 2


def wrong_p_squared(x, a, q, c, p, v):
    """the decoder's variance is squared in the reconstruction"""
    return with_guess(lambda x, a, q, c, p: density((x - c * a * x) ** 2 + c**2 * q, p**2))(
        x, a, q, c, p, v)


def wrong_noise_unscaled(x, a, q, c, p, v):
    """the noise of z_1 reaches the guess of x through c_1"""
    return with_guess(lambda x, a, q, c, p: density((x - c * a * x) ** 2 + q, p))(
        x, a, q, c, p, v)


def wrong_copy(x, a, q, c, p, v):
    """z_1 is no copy of x"""
    return with_guess(lambda x, a, q, c, p: density((x - c * x) ** 2 + c**2 * q, p))(
        x, a, q, c, p, v)


def wrong_standard_prior(x, a, q, c, p, v):
    """the prior's variance is v, not one"""
    return with_top(lambda x, m, w, v: kl((m * x) ** 2, w, 1.0))(x, a, q, c, p, v)


def wrong_v_squared(x, a, q, c, p, v):
    """v is a variance already"""
    return with_top(lambda x, m, w, v: kl((m * x) ** 2, w, v**2))(x, a, q, c, p, v)


def wrong_top_backwards(x, a, q, c, p, v):
    """the distance to the prior is taken the other way round"""
    return with_top(lambda x, m, w, v: kl((m * x) ** 2, w.new_tensor(v), w))(x, a, q, c, p, v)


def wrong_top_forgets(x, a, q, c, p, v):
    """the top still remembers x"""
    return with_top(lambda x, m, w, v: kl(0 * x, w, v))(x, a, q, c, p, v)


def wrong_top_unsquared(x, a, q, c, p, v):
    """that of the top to the prior is not squared"""
    return with_top(lambda x, m, w, v: kl(m * x, w, v))(x, a, q, c, p, v)


def wrong_printed(x, a, q, c, p, v):
    """printed as KL divergences, which they are not"""
    return right(x, a, q, c, p, v) - (a[1:] * c[1:] * q[:-1] / p[1:]).sum()


def wrong_evidence(x, a, q, c, p, v):
    """this is log p(x) itself"""
    for c_t, p_t in zip(c.flip(0), p.flip(0), strict=True):
        v = c_t**2 * v + p_t
    return density(x**2, v)


def wrong_too_high(x, a, q, c, p, v):
    """which no lower bound may do"""
    return right(x, a, q, c, p, v) + 5 + x**2


def wrong_one_number(x, a, q, c, p, v):
    """each has a bound of its own"""
    return right(x, a, q, c, p, v).mean()


def wrong_library(x, a, q, c, p, v):
    """refuses while your answer runs"""
    from coursekit.diffusion.mhvae import Chain

    return Chain(*(k.double() for k in (a, q, c, p)), v).telescoped(x.double()).total.to(x.dtype)


def right_parts(x, a, q, c, p, v):
    return right(x, a, q, c, p, v)


def right_other_form(x, a, q, c, p, v):
    """Before Bayes: the neighbours of every level from below and from above."""
    m, w = [torch.ones_like(a[0])], [torch.zeros_like(a[0])]
    for a_t, q_t in zip(a, q, strict=True):
        m.append(a_t * m[-1])
        w.append(a_t**2 * w[-1] + q_t)
    second = [m_t**2 * x**2 + w_t for m_t, w_t in zip(m, w, strict=True)]
    total = density(second[-1], torch.as_tensor(v, dtype=x.dtype))
    for t in range(len(a)):
        total = total + density((1 - c[t] * a[t]) ** 2 * second[t] + c[t] ** 2 * q[t], p[t])
        total = total - density(q[t], q[t])
    return total


def right_torch_normal(x, a, q, c, p, v):
    from torch.distributions import Normal, kl_divergence

    first, _, terms, m, w = parts(x, a, q, c, p, v)
    law = Normal(m * x, w.sqrt() + 0 * x)
    prior = Normal(torch.zeros_like(x), torch.full_like(x, math.sqrt(v)))
    return first - (kl_divergence(law, prior) + terms.sum(0))
