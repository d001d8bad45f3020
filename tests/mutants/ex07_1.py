"""Answers to 07-1: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch
import torch.nn.functional as F


def cosines(pictures, texts):
    return F.normalize(pictures, dim=-1) @ F.normalize(texts, dim=-1).T


def loss(logits):
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def wrong_not_normalised(pictures, texts, log_scale):
    """the embeddings are compared as they come"""
    return loss(log_scale.exp() * pictures @ texts.T)


def wrong_only_pictures_normalised(pictures, texts, log_scale):
    """only one of the two sides has length one"""
    return loss(log_scale.exp() * F.normalize(pictures, dim=1) @ texts.T)


def wrong_only_texts_normalised(pictures, texts, log_scale):
    """only one of the two sides has length one"""
    return loss(log_scale.exp() * pictures @ F.normalize(texts, dim=1).T)


def wrong_axis_of_length(pictures, texts, log_scale):
    """lengths were taken down the batch"""
    return loss(log_scale.exp() * F.normalize(pictures, dim=0) @ F.normalize(texts, dim=0).T)


def wrong_pictures_alone(pictures, texts, log_scale):
    """only the pictures choose among the texts"""
    logits = log_scale.exp() * cosines(pictures, texts)
    return F.cross_entropy(logits, torch.arange(len(logits)))


def wrong_texts_alone(pictures, texts, log_scale):
    """only the texts choose among the pictures"""
    logits = log_scale.exp() * cosines(texts, pictures)
    return F.cross_entropy(logits, torch.arange(len(logits)))


def wrong_same_axis_twice(pictures, texts, log_scale):
    """only the pictures choose among the texts"""
    logits = log_scale.exp() * cosines(pictures, texts)
    rows = -logits.log_softmax(1).diagonal().mean()
    columns = -logits.T.log_softmax(0).diagonal().mean()
    return (rows + columns) / 2


def wrong_added(pictures, texts, log_scale):
    """the two directions are added"""
    return 2 * loss(log_scale.exp() * cosines(pictures, texts))


def wrong_sum(pictures, texts, log_scale):
    """the pairs are added"""
    logits, own = log_scale.exp() * cosines(pictures, texts), torch.arange(len(pictures))
    return (F.cross_entropy(logits, own, reduction="sum")
            + F.cross_entropy(logits.T, own, reduction="sum")) / 2


def wrong_log_scale(pictures, texts, log_scale):
    """the scale is given as a logarithm"""
    return loss(log_scale * cosines(pictures, texts))


def wrong_no_scale(pictures, texts, log_scale):
    """log_scale has no effect"""
    return loss(cosines(pictures, texts))


def wrong_temperature(pictures, texts, log_scale):
    """the cosines are divided by the scale"""
    return loss(cosines(pictures, texts) / log_scale.exp())


def wrong_whole_table(pictures, texts, log_scale):
    """the softmax runs over the whole table"""
    logits = log_scale.exp() * cosines(pictures, texts)
    return -logits.flatten().log_softmax(0).view_as(logits).diagonal().mean()


def wrong_mean_of_all(pictures, texts, log_scale):
    """the mean runs over the whole table"""
    logits = log_scale.exp() * cosines(pictures, texts)
    return -(logits.log_softmax(0).mean() + logits.log_softmax(1).mean()) / 2


def wrong_softmax_twice(pictures, texts, log_scale):
    """the softmax is taken twice"""
    logits, own = log_scale.exp() * cosines(pictures, texts), torch.arange(len(pictures))
    return (F.cross_entropy(logits.softmax(1), own) + F.cross_entropy(logits.T.softmax(1), own)) / 2


def wrong_no_logarithm(pictures, texts, log_scale):
    """the logarithm of the probabilities is missing"""
    logits = log_scale.exp() * cosines(pictures, texts)
    return -(logits.softmax(0).diagonal() + logits.softmax(1).diagonal()).mean() / 2


def wrong_overflow(pictures, texts, log_scale):
    """has no room in float32"""
    e = (log_scale.exp() * cosines(pictures, texts)).exp()
    return -((e / e.sum(0)).diagonal().log() + (e / e.sum(1)).diagonal().log()).mean() / 2


def wrong_sign(pictures, texts, log_scale):
    """the sign is the other way round"""
    logits = log_scale.exp() * cosines(pictures, texts)
    return (logits.log_softmax(0).diagonal() + logits.log_softmax(1).diagonal()).mean() / 2


def wrong_float(pictures, texts, log_scale):
    """a Python float cannot be trained on"""
    return float(loss(log_scale.exp() * cosines(pictures, texts)))


def wrong_library(pictures, texts, log_scale):
    """own refuses while your answer runs"""
    from open_clip.loss import ClipLoss

    u, v = (F.normalize(x, dim=-1) for x in (pictures, texts))
    return ClipLoss()(u, v, log_scale.exp())


def wrong_zero(pictures, texts, log_scale):
    """came 0, wanted"""
    return torch.zeros((), dtype=pictures.dtype)


def right_cross_entropy(pictures, texts, log_scale):
    return loss(log_scale.exp() * cosines(pictures, texts))


def right_by_hand(pictures, texts, log_scale):
    u = pictures / pictures.norm(dim=1, keepdim=True)
    v = texts / texts.norm(dim=1, keepdim=True)
    logits = math.exp(log_scale) * u @ v.T
    rows, columns = torch.logsumexp(logits, 1), torch.logsumexp(logits, 0)
    return (rows + columns - 2 * torch.diag(logits)).mean() / 2


def right_by_loops(pictures, texts, log_scale):
    total, n = 0, len(pictures)
    for i in range(n):
        to_texts = torch.cosine_similarity(pictures[i][None], texts) * log_scale.exp()
        to_pictures = torch.cosine_similarity(texts[i][None], pictures) * log_scale.exp()
        total = total - to_texts.log_softmax(0)[i] - to_pictures.log_softmax(0)[i]
    return total / (2 * n)
