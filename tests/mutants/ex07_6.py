"""Answers to 07-6: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch
import torch.nn.functional as F


def shares(q, k):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)  # b heads n l


def told(m, words, size):
    """Maps from the shares (b, n, l) of one head."""
    parts = [m[..., tokens].sum(-1) for tokens in words]
    return torch.stack(parts, 1).unflatten(2, tuple(size))


def wrong_no_root(q, k, words, size):
    """the root of the width of a head is missing"""
    return told((q @ k.mT).softmax(-1).mean(1), words, size)


def wrong_total_width(q, k, words, size):
    """not of all heads together"""
    return told((q @ k.mT / math.sqrt(q.shape[1] * q.shape[3])).softmax(-1).mean(1), words, size)


def wrong_tokens(q, k, words, size):
    """not of the number of tokens or pixels"""
    return told((q @ k.mT / math.sqrt(k.shape[2])).softmax(-1).mean(1), words, size)


def wrong_pixels(q, k, words, size):
    """not of the number of tokens or pixels"""
    return told((q @ k.mT / math.sqrt(q.shape[2])).softmax(-1).mean(1), words, size)


def wrong_width(q, k, words, size):
    """divided by the width itself"""
    return told((q @ k.mT / q.shape[-1]).softmax(-1).mean(1), words, size)


def wrong_multiplied(q, k, words, size):
    """the logits are multiplied by the root"""
    return told((q @ k.mT * math.sqrt(q.shape[-1])).softmax(-1).mean(1), words, size)


def wrong_softmax_axis(q, k, words, size):
    """the softmax runs over the pixels"""
    return told((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-2).mean(1), words, size)


def wrong_no_softmax(q, k, words, size):
    """the softmax is missing"""
    return told((q @ k.mT / math.sqrt(q.shape[-1])).mean(1), words, size)


def wrong_heads_first(q, k, words, size):
    """heads are averaged before the softmax"""
    return told((q @ k.mT / math.sqrt(q.shape[-1])).mean(1).softmax(-1), words, size)


def wrong_heads_added(q, k, words, size):
    """heads are added"""
    return told(shares(q, k).sum(1), words, size)


def wrong_first_head(q, k, words, size):
    """only the first head is used"""
    return told(shares(q, k)[:, 0], words, size)


def wrong_mean_of_tokens(q, k, words, size):
    """the tokens of a word are averaged"""
    m = shares(q, k).mean(1)
    return torch.stack([m[..., t].mean(-1) for t in words], 1).unflatten(2, tuple(size))


def wrong_largest_token(q, k, words, size):
    """the largest is taken"""
    m = shares(q, k).mean(1)
    return torch.stack([m[..., t].amax(-1) for t in words], 1).unflatten(2, tuple(size))


def wrong_first_token(q, k, words, size):
    """only one token of each word is used"""
    return told(shares(q, k).mean(1), [t[:1] for t in words], size)


def wrong_last_token(q, k, words, size):
    """only one token of each word is used"""
    return told(shares(q, k).mean(1), [t[-1:] for t in words], size)


def wrong_words_alone(q, k, words, size):
    """all others take part, too"""
    used = [t for tokens in words for t in tokens]
    m = shares(q, k[:, :, used]).mean(1)
    return told(m, [[used.index(t) for t in tokens] for tokens in words], size)


def wrong_no_start(q, k, words, size):
    """the positions were moved by one"""
    return told(shares(q, k).mean(1), [[t - 1 for t in tokens] for tokens in words], size)


def wrong_start_twice(q, k, words, size):
    """the positions were moved by one"""
    return told(shares(q, k).mean(1), [[t + 1 for t in tokens] for tokens in words], size)


def wrong_columns(q, k, words, size):
    """the pixels were read column by column"""
    return told(shares(q, k).mean(1), words, size[::-1]).mT


def wrong_size(q, k, words, size):
    """height and width have changed places"""
    return told(shares(q, k).mean(1), words, size[::-1])


def wrong_transposed(q, k, words, size):
    """height and width have changed places"""
    return told(shares(q, k).mean(1), words, size).mT


def wrong_words_last(q, k, words, size):
    """the words stand in the last axis"""
    return told(shares(q, k).mean(1), words, size).permute(0, 2, 3, 1)


def wrong_peak(q, k, words, size):
    """each map is divided by its own peak"""
    m = told(shares(q, k).mean(1), words, size)
    return m / m.amax((2, 3), keepdim=True)


def wrong_flat(q, k, words, size):
    """the pixels stand in one axis"""
    return told(shares(q, k).mean(1), words, size).flatten(2)


def wrong_library(q, k, words, size):
    """own refuses while your answer runs"""
    from coursekit.nets.wordmaps import look

    return look(q, k, torch.eye(k.shape[2]), size)


def right_plain(q, k, words, size):
    return told(shares(q, k).mean(1), words, size)


def right_matrix(q, k, words, size):
    join = torch.zeros(k.shape[2], len(words), dtype=q.dtype)
    for column, tokens in enumerate(words):
        join[tokens, column] = 1
    joined = shares(q, k) @ join  # b heads n words
    return joined.mean(1).transpose(1, 2).reshape(len(q), len(words), *size)


def right_fused(q, k, words, size):
    value = torch.stack([F.one_hot(torch.tensor(tokens), k.shape[2]).sum(0) for tokens in words], 1)
    value = value.to(q.dtype).expand(*q.shape[:2], -1, -1)
    out = F.scaled_dot_product_attention(q, k, value)
    return out.mean(1).mT.reshape(len(q), -1, *size)


def right_loops(q, k, words, size):
    out = torch.zeros(len(q), len(words), *size, dtype=q.dtype)
    for head in range(q.shape[1]):
        logits = torch.einsum("bnd,bld->bnl", q[:, head], k[:, head]) * q.shape[-1] ** -0.5
        m = F.softmax(logits, dim=2)
        for i, tokens in enumerate(words):
            for token in tokens:
                out[:, i] += m[:, :, token].reshape(-1, *size) / q.shape[1]
    return out
