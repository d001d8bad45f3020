"""Answers to 07-3: wrong_* must be told what their docstring says, right_* must pass."""

import torch
import torch.nn.functional as F


def unit(x):
    return F.normalize(x, dim=-1)


def cosine(a, b):
    return (F.normalize(a, dim=-1, eps=1e-7) * F.normalize(b, dim=-1)).sum(-1)


def wrong_not_normalised(generated, reference, source, target):
    """differences are taken of embeddings as they come"""
    return 1 - cosine(generated - reference, target - source)


def wrong_pictures_not_normalised(generated, reference, source, target):
    """the pictures' embeddings are used as they come"""
    return 1 - cosine(generated - reference, unit(target) - unit(source))


def wrong_texts_not_normalised(generated, reference, source, target):
    """the texts' embeddings are used as they come"""
    return 1 - cosine(unit(generated) - unit(reference), target - source)


def wrong_words_reversed(generated, reference, source, target):
    """one of the two directions is reversed"""
    return 1 - cosine(unit(generated) - unit(reference), unit(source) - unit(target))


def wrong_pictures_reversed(generated, reference, source, target):
    """one of the two directions is reversed"""
    return 1 - cosine(unit(reference) - unit(generated), unit(target) - unit(source))


def wrong_cosine(generated, reference, source, target):
    """the loss is one minus it"""
    return cosine(unit(generated) - unit(reference), unit(target) - unit(source))


def wrong_global(generated, reference, source, target):
    """picture and text are compared with each other"""
    return 1 - cosine(generated, target)


def wrong_from_the_text(generated, reference, source, target):
    """the picture's direction begins at the text"""
    return 1 - cosine(unit(generated) - unit(source), unit(target) - unit(source))


def wrong_no_reference(generated, reference, source, target):
    """take the reference off"""
    return 1 - cosine(generated, unit(target) - unit(source))


def wrong_no_source(generated, reference, source, target):
    """take the source off"""
    return 1 - cosine(unit(generated) - unit(reference), target)


def wrong_dot(generated, reference, source, target):
    """the two differences must have length one"""
    return 1 - (unit(generated) - unit(reference)) @ (unit(target) - unit(source))


def wrong_angle(generated, reference, source, target):
    """the angle came"""
    return cosine(unit(generated) - unit(reference), unit(target) - unit(source)).acos()


def wrong_itself(generated, reference, source, target):
    """nothing seems to have moved"""
    return 1 - cosine(unit(generated) - unit(generated), unit(target) - unit(source))


def wrong_nan(generated, reference, source, target):
    """bound the length from below before you divide"""
    move, words = unit(generated) - unit(reference), unit(target) - unit(source)
    return 1 - (move / move.norm(dim=1, keepdim=True)) @ (words / words.norm())


def wrong_nan_hidden(generated, reference, source, target):
    """hide a 0/0 from the value alone"""
    move, words = unit(generated) - unit(reference), unit(target) - unit(source)
    cos = (move / move.norm(dim=1, keepdim=True)) @ (words / words.norm())
    return 1 - torch.where(move.norm(dim=1) > 0, cos, torch.zeros_like(cos))


def wrong_nan_to_zero(generated, reference, source, target):
    """gets the best loss there is"""
    move, words = unit(generated) - unit(reference), unit(target) - unit(source)
    return (1 - (move / move.norm(dim=1, keepdim=True)) @ (words / words.norm())).nan_to_num(0)


def wrong_root(generated, reference, source, target):
    """the root of a square has no slope at zero"""
    move, words = unit(generated) - unit(reference), unit(target) - unit(source)
    length = move.square().sum(1).sqrt().clamp(min=1e-7)
    return 1 - move @ words / (length * words.norm())


def wrong_mean(generated, reference, source, target):
    """a sum or a mean goes over too many axes"""
    return (1 - cosine(unit(generated) - unit(reference), unit(target) - unit(source))).mean()


def wrong_detached(generated, reference, source, target):
    """no gradient reaches the generated pictures"""
    with torch.no_grad():
        return 1 - cosine(unit(generated) - unit(reference), unit(target) - unit(source))


def wrong_library(generated, reference, source, target):
    """own refuses while your answer runs"""
    from coursekit.nets.clip import directional_loss

    return directional_loss(unit(generated), unit(reference), unit(target) - unit(source))


def right_normalize(generated, reference, source, target):
    return 1 - cosine(unit(generated) - unit(reference), unit(target) - unit(source))


def right_cosine_similarity(generated, reference, source, target):
    move = unit(generated) - unit(reference)
    return 1 - torch.cosine_similarity(move, (unit(target) - unit(source))[None])


def right_clamped_norm(generated, reference, source, target):
    u, v = (x / x.norm(dim=1, keepdim=True) for x in (generated, reference))
    words = target / target.norm() - source / source.norm()
    move = (u - v) / torch.linalg.vector_norm(u - v, dim=1, keepdim=True).clamp(min=1e-7)
    return 1 - move @ (words / words.norm())


def right_root_of_bounded_square(generated, reference, source, target):
    move, words = unit(generated) - unit(reference), unit(unit(target) - unit(source))
    return 1 - move @ words * move.square().sum(1).clamp(min=1e-14).rsqrt()
