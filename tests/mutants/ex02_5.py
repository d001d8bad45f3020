"""Answers to 02-5: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def pieces(schedule, x0, guess, t, s):
    """The distance of the means, and the variance of q."""
    now, then = schedule.level(t), schedule.level(s)
    beta = 1 - now / then
    return math.sqrt(then) * beta / (1 - now) * (x0 - guess), (1 - then) / (1 - now) * beta


def total(elements):
    return elements.flatten(1).sum(1)


def wrong_number(schedule, x0, guess, t, s, var):
    """sum over all axes but the first"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return ((own / var - 1 - math.log(own / var) + gap**2 / var) / 2).sum()


def wrong_elements(schedule, x0, guess, t, s, var):
    """sum over all axes but the first"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return (own / var - 1 - math.log(own / var) + gap**2 / var) / 2


def wrong_mean(schedule, x0, guess, t, s, var):
    """a KL adds up over them"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return ((own / var - 1 - math.log(own / var) + gap**2 / var) / 2).flatten(1).mean(1)


def wrong_equal_variances(schedule, x0, guess, t, s, var):
    """the variances' own part is missing"""
    gap, _ = pieces(schedule, x0, guess, t, s)
    return total(gap**2) / (2 * var)


def wrong_snr(schedule, x0, guess, t, s, var):
    """the variances' own part is missing"""
    now, then = schedule.level(t), schedule.level(s)
    change = then / (1 - then) - now / (1 - now)
    return change / 2 * total((x0 - guess) ** 2)


def wrong_counted_once(schedule, x0, guess, t, s, var):
    """each number of the item pays it"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return (own / var - 1 - math.log(own / var) + total(gap**2) / var) / 2


def wrong_no_half(schedule, x0, guess, t, s, var):
    """the half is missing"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(own / var - 1 - math.log(own / var) + gap**2 / var)


def wrong_direction(schedule, x0, guess, t, s, var):
    """the two laws have changed places"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(var / own - 1 - math.log(var / own) + gap**2 / own) / 2


def wrong_units(schedule, x0, guess, t, s, var):
    """in units of the model's step"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(own / var - 1 - math.log(own / var) + gap**2 / own) / 2


def wrong_sign_of_the_logarithm(schedule, x0, guess, t, s, var):
    """the sign of the logarithm"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(own / var - 1 + math.log(own / var) + gap**2 / var) / 2


def wrong_no_one(schedule, x0, guess, t, s, var):
    """two equal laws must cost nothing"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(own / var - math.log(own / var) + gap**2 / var) / 2


def wrong_gap_not_squared(schedule, x0, guess, t, s, var):
    """the distance of the means is not squared"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(own / var - 1 - math.log(own / var) + gap.abs() / var) / 2


def wrong_variance_squared(schedule, x0, guess, t, s, var):
    """it is not squared"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(own / var**2 - 1 - math.log(own / var**2) + gap**2 / var**2) / 2


def wrong_distance(schedule, x0, guess, t, s, var):
    """enter the means with a weight"""
    _, own = pieces(schedule, x0, guess, t, s)
    return total(own / var - 1 - math.log(own / var) + (x0 - guess) ** 2 / var) / 2


def wrong_forward_variance(schedule, x0, guess, t, s, var):
    """smaller than that of the forward hop"""
    gap, own = pieces(schedule, x0, guess, t, s)
    own = 1 - schedule.level(t) / schedule.level(s)
    return total(own / var - 1 - math.log(own / var) + gap**2 / var) / 2


def wrong_bits(schedule, x0, guess, t, s, var):
    """here nats are asked for"""
    gap, own = pieces(schedule, x0, guess, t, s)
    return total(own / var - 1 - math.log(own / var) + gap**2 / var) / 2 / math.log(2)


def wrong_neighbours(schedule, x0, guess, t, s, var):
    """this is the hop from t to t - 1"""
    gap, own = pieces(schedule, x0, guess, t, t - 1)
    return total(own / var - 1 - math.log(own / var) + gap**2 / var) / 2


def wrong_library(schedule, x0, guess, t, s, var):
    """refuses while your answer runs"""
    from coursekit.diffusion.elbo import matching

    return matching(schedule, x0, guess, t, s, var_p=var)


def right_plain(schedule, x0, guess, t, s, var):
    gap, own = pieces(schedule, x0, guess, t, s)
    square = gap.flatten(1).norm(dim=1) ** 2
    count = x0[0].numel()
    return (count * (own / var - 1 - math.log(own / var)) + square / var) / 2


def right_distributions(schedule, x0, guess, t, s, var):
    from torch.distributions import Normal, kl_divergence

    now, then = schedule.level(t), schedule.level(s)
    slope = math.sqrt(now / then) * (1 - then) / (1 - now)

    def mean(picture):
        return math.sqrt(then) * picture - slope * math.sqrt(now) * picture

    own = (1 - then) - slope**2 * (1 - now)
    q = Normal(mean(x0.double()), math.sqrt(own))
    p = Normal(mean(guess.double()), math.sqrt(var))
    return torch.einsum("b...->b", kl_divergence(q, p)).to(x0.dtype)
