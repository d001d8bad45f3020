"""Answers to 01-1: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def bracket(square, var_q, var_p):
    return var_q / var_p - 1 - (var_q / var_p).log() + square / var_p


def wrong_direction(square, var_q, var_p):
    """q and p have changed places"""
    return bracket(square, var_p, var_q) / 2


def wrong_no_half(square, var_q, var_p):
    """the factor in front of the bracket is missing"""
    return bracket(square, var_q, var_p)


def wrong_unit(square, var_q, var_p):
    """in units of the wrong variance"""
    return (var_q / var_p - 1 - (var_q / var_p).log() + square / var_q) / 2


def wrong_no_one(square, var_q, var_p):
    """a constant is missing"""
    return (var_q / var_p - (var_q / var_p).log() + square / var_p) / 2


def wrong_log_sign(square, var_q, var_p):
    """the logarithm has the wrong sign"""
    ratio = var_q / var_p
    return (ratio - 1 + ratio.log() + square / var_p) / 2


def wrong_squared_again(square, var_q, var_p):
    """the distance comes squared already"""
    return bracket(square**2, var_q, var_p) / 2


def wrong_deviations(square, var_q, var_p):
    """variances already: do not square them"""
    return bracket(square, var_q**2, var_p**2) / 2


def wrong_some_deviations(square, var_q, var_p):
    """variances already: do not square them"""
    ratio = var_q**2 / var_p**2
    return 0.5 * (ratio - 1 - ratio.log() + square / var_p**2)


def wrong_roots(square, var_q, var_p):
    """the formula has no deviations in it"""
    return bracket(square, var_q.sqrt(), var_p.sqrt()) / 2


def wrong_distance_alone(square, var_q, var_p):
    """only the distance enters"""
    return square / (2 * var_p)


def wrong_no_distance(square, var_q, var_p):
    """the squared distance does not enter"""
    return (bracket(0 * square, var_q, var_p)) / 2


def wrong_bits(square, var_q, var_p):
    """the logarithm is the natural one"""
    ratio = var_q / var_p
    return (ratio - 1 - ratio.log2() + square / var_p) / 2


def wrong_sign(square, var_q, var_p):
    """the sign is the other way round"""
    return -bracket(square, var_q, var_p) / 2


def wrong_no_return(square, var_q, var_p):
    """is there a return at the end"""
    bracket(square, var_q, var_p)


def wrong_mean(square, var_q, var_p):
    """wanted float64 tensor (6,)"""
    return (bracket(square, var_q, var_p) / 2).mean()


def wrong_library(square, var_q, var_p):
    """refuses while your answer runs"""
    from coursekit.diffusion.mhvae import gaussian_kl

    return gaussian_kl(square, var_q, var_p)


def wrong_torch(square, var_q, var_p):
    """refuses while your answer runs"""
    from torch.distributions import Normal, kl_divergence

    return kl_divergence(Normal(square.sqrt(), var_q.sqrt()), Normal(0 * square, var_p.sqrt()))


def right_ratio(square, var_q, var_p):
    ratio = var_q / var_p
    return 0.5 * (ratio - 1 - torch.log(ratio) + square / var_p)


def right_three_terms(square, var_q, var_p):
    return (var_p.log() - var_q.log()) / 2 + (var_q + square) / (2 * var_p) - 0.5


def right_cross_entropy(square, var_q, var_p):
    cross = (torch.log(2 * math.pi * var_p) + (var_q + square) / var_p) / 2
    return cross - (torch.log(2 * math.pi * var_q) + 1) / 2
