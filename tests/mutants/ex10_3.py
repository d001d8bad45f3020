"""Answers to 10-3: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch
from torch.nn import functional as F


def lent(x, b):
    return x[:b].repeat(len(x) // b, 1, 1, 1)


def attention(q, k, v, scale=None, axis=-1):
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return (scale * q @ k.transpose(-1, -2)).softmax(axis) @ v


def right_plain(q, k, v, b):
    return attention(lent(q, b), lent(k, b), v)


def right_fused(q, k, v, b):
    q, k = (torch.cat([x[:b]] * (len(x) // b)) for x in (q, k))
    return F.scaled_dot_product_attention(q, k, v)


def right_one_map(q, k, v, b):
    """The map once for each source, for all its rows."""
    A = torch.einsum("bhnd,bhld->bhnl", q[:b], k[:b]).div(q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhnl,pbhld->pbhnd", A, v.unflatten(0, (-1, b))).flatten(0, 1)


def right_by_hand(q, k, v, b):
    out = torch.empty_like(v)
    for row in range(len(q)):
        L = q[row % b] @ k[row % b].mT / q.shape[-1] ** 0.5
        share = (L - L.amax(-1, keepdim=True)).exp()
        out[row] = share / share.sum(-1, keepdim=True) @ v[row]
    return out


def wrong_plain_attention(q, k, v, b):
    """this is plain attention"""
    return attention(q, k, v)


def wrong_queries(q, k, v, b):
    """only the queries are the source's"""
    return attention(lent(q, b), k, v)


def wrong_keys(q, k, v, b):
    """only the keys are the source's"""
    return attention(q, lent(k, b), v)


def wrong_values(q, k, v, b):
    """the values are the source's, too"""
    return attention(*(lent(x, b) for x in (q, k, v)))


def wrong_mutual(q, k, v, b):
    """keys and values are the source's"""
    return attention(q, lent(k, b), lent(v, b))


def wrong_first_source(q, k, v, b):
    """the map of the first source"""
    q, k = (torch.cat([x[:b], x[:1].repeat(len(x) - b, 1, 1, 1)]) for x in (q, k))
    return attention(q, k, v)


def wrong_order(q, k, v, b):
    """in the wrong order"""
    m = len(q) // b - 1
    q, k = (torch.cat([x[:b], x[:b].repeat_interleave(m, 0)]) for x in (q, k))
    return attention(q, k, v)


def wrong_last_part(q, k, v, b):
    """only the last part"""
    q, k = (torch.cat([x[:-b], x[:b]]) for x in (q, k))
    return attention(q, k, v)


def wrong_second_part(q, k, v, b):
    """only the second part"""
    q, k = (torch.cat([x[:b], x[:b], x[2 * b:]]) for x in (q, k))
    return attention(q, k, v)


def wrong_from_last(q, k, v, b):
    """the sources stand first"""
    q, k = (torch.cat([x[-b:]] * (len(x) // b)) for x in (q, k))
    return attention(q, k, v)


def wrong_no_scale(q, k, v, b):
    """not divided by the root of d"""
    return attention(lent(q, b), lent(k, b), v, 1.0)


def wrong_scale_d(q, k, v, b):
    """divided by d: by its root"""
    return attention(lent(q, b), lent(k, b), v, 1 / q.shape[-1])


def wrong_scale_up(q, k, v, b):
    """multiplied by the root of d"""
    return attention(lent(q, b), lent(k, b), v, q.shape[-1] ** 0.5)


def wrong_scale_places(q, k, v, b):
    """d is the width of a head"""
    return attention(lent(q, b), lent(k, b), v, q.shape[2] ** -0.5)


def wrong_softmax_queries(q, k, v, b):
    """over the places that ask"""
    return attention(lent(q, b), lent(k, b), v, axis=-2)


def wrong_softmax_heads(q, k, v, b):
    """over the heads"""
    return attention(lent(q, b), lent(k, b), v, axis=1)


def wrong_no_softmax(q, k, v, b):
    """the softmax is missing"""
    return lent(q, b) @ lent(k, b).mT / q.shape[-1] ** 0.5 @ v


def wrong_turned(q, k, v, b):
    """the map is turned about"""
    return (lent(q, b) @ lent(k, b).mT / q.shape[-1] ** 0.5).softmax(-1).mT @ v


def wrong_exchanged(q, k, v, b):
    """queries and keys have changed places"""
    return attention(lent(k, b), lent(q, b), v)


def wrong_one_map_for_heads(q, k, v, b):
    """all heads look at the same"""
    A = (lent(q, b) @ lent(k, b).mT / q.shape[-1] ** 0.5).softmax(-1)
    return A.mean(1, keepdim=True) @ v


def wrong_mixed(q, k, v, b):
    """mixed with the edit's own"""
    theirs, mine = (attention(of(q), of(k), v) for of in (lambda x: lent(x, b), lambda x: x))
    return torch.cat([mine[:b], (theirs[b:] + mine[b:]) / 2])


def wrong_map(q, k, v, b):
    """this is the map"""
    return (lent(q, b) @ lent(k, b).mT / q.shape[-1] ** 0.5).softmax(-1)


def wrong_rows_lost(q, k, v, b):
    """rows were lost"""
    return right_plain(q, k, v, b)[b:]
