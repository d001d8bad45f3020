"""Answers to 02-6: wrong_* must be told what their docstring says, right_* must pass."""

import math
from itertools import pairwise

import torch

from coursekit.diffusion.elbo import discretised


def beta_tilde(schedule, t, s):
    now, then = schedule.level(t), schedule.level(s)
    return (1 - then) / (1 - now) * (1 - now / then)


def total(elements):
    return elements.flatten(1).sum(1)


def guesses(eps, schedule, x0, path, noise, at=lambda t, s: t):
    for (t, s), z in zip(pairwise(path), noise, strict=True):
        level = schedule.level(t)
        x = math.sqrt(level) * x0 + math.sqrt(1 - level) * z
        yield t, s, (x - math.sqrt(1 - level) * eps(x, at(t, s))) / math.sqrt(level)


def first(schedule, x0, t):
    level = schedule.level(t)
    return total(level * (x0**2 - 1) - math.log(1 - level)) / 2


def middle(schedule, x0, guess, t, s):
    low, high = schedule.level(t), schedule.level(s)
    return (high / (1 - high) - low / (1 - low)) / 2 * total((x0 - guess) ** 2)


def last(schedule, x0, guess, path):
    sd = math.sqrt(beta_tilde(schedule, path[-3], path[-2]))
    return -total(discretised(x0, guess, sd)).to(x0.dtype)


def three(eps, schedule, x0, path, noise, at=lambda t, s: t):
    """Prior, matching terms, decoder, in nats."""
    terms = [middle(schedule, x0, guess, t, s) if s else last(schedule, x0, guess, path)
             for t, s, guess in guesses(eps, schedule, x0, path, noise, at)]
    return first(schedule, x0, path[0]), terms[:-1], terms[-1]


def wrong_one_number(eps, schedule, x0, path, noise):
    """not one for the batch"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) + c).mean() / (x0[0].numel() * math.log(2))


def wrong_nats(eps, schedule, x0, path, noise):
    """a bit is log 2 nats"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) + c) / x0[0].numel()


def wrong_way_of_log_2(eps, schedule, x0, path, noise):
    """in bits the number is larger"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) + c) / x0[0].numel() * math.log(2)


def wrong_whole_item(eps, schedule, x0, path, noise):
    """divide by how many numbers it has"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) + c) / math.log(2)


def wrong_whole_batch(eps, schedule, x0, path, noise):
    """those of one item count"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) + c) / (x0.numel() * math.log(2))


def wrong_sign(eps, schedule, x0, path, noise):
    """the sign is the other way round"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return -(a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_no_prior(eps, schedule, x0, path, noise):
    """the prior's term is missing"""
    _, b, c = three(eps, schedule, x0, path, noise)
    return (sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_no_decoder(eps, schedule, x0, path, noise):
    """the decoder's term is missing"""
    a, b, _ = three(eps, schedule, x0, path, noise)
    return (a + sum(b)) / (x0[0].numel() * math.log(2))


def wrong_no_matching(eps, schedule, x0, path, noise):
    """the matching terms are missing"""
    a, _, c = three(eps, schedule, x0, path, noise)
    return (a + c) / (x0[0].numel() * math.log(2))


def wrong_sign_of_the_decoder(eps, schedule, x0, path, noise):
    """the decoder's log probability has the wrong sign"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) - c) / (x0[0].numel() * math.log(2))


def wrong_last_matching(eps, schedule, x0, path, noise):
    """only the hop that ends at 0"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b[:-1]) + c) / (x0[0].numel() * math.log(2))


def wrong_averaged(eps, schedule, x0, path, noise):
    """a bound adds them up"""
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + torch.stack(b).mean(0) + c) / (x0[0].numel() * math.log(2))


def wrong_prior_at_top(eps, schedule, x0, path, noise):
    """the time at which the path begins"""
    _, b, c = three(eps, schedule, x0, path, noise)
    return (first(schedule, x0, schedule.T) + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_noise_backwards(eps, schedule, x0, path, noise):
    """the noise is used from its end"""
    a, b, c = three(eps, schedule, x0, path, noise.flip(0))
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_one_noise(eps, schedule, x0, path, noise):
    """one and the same noise"""
    a, b, c = three(eps, schedule, x0, path, [noise[0]] * len(noise))
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_unweighted(eps, schedule, x0, path, noise):
    """that is L_simple"""
    a, _, c = three(eps, schedule, x0, path, noise)
    for (t, s), z in zip(pairwise(path), noise, strict=True):
        level = schedule.level(t)
        x = math.sqrt(level) * x0 + math.sqrt(1 - level) * z
        a = a + (total((z - eps(x, t)) ** 2) if s else 0)
    return (a + c) / (x0[0].numel() * math.log(2))


def wrong_untranslated(eps, schedule, x0, path, noise):
    """the network's answer is a noise"""
    def tricked(x, t):
        level = schedule.level(t)
        return (x - math.sqrt(level) * eps(x, t)) / math.sqrt(1 - level)

    a, b, c = three(tricked, schedule, x0, path, noise)
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_time(eps, schedule, x0, path, noise):
    """ask where it begins"""
    a, b, c = three(eps, schedule, x0, path, noise, at=lambda t, s: s)
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_decoder_of_forward(eps, schedule, x0, path, noise):
    """not that of the forward hop"""
    a, b, _ = three(eps, schedule, x0, path, noise)
    sd = math.sqrt(1 - schedule.level(path[-3]) / schedule.level(path[-2]))
    guess = list(guesses(eps, schedule, x0, path, noise))[-1][2]
    c = -total(discretised(x0, guess, sd)).to(x0.dtype)
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_decoder_variance(eps, schedule, x0, path, noise):
    """it asks for the deviation"""
    a, b, _ = three(eps, schedule, x0, path, noise)
    guess = list(guesses(eps, schedule, x0, path, noise))[-1][2]
    c = -total(discretised(x0, guess, beta_tilde(schedule, *path[-3:-1]))).to(x0.dtype)
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_twice(eps, schedule, x0, path, noise):
    """more often than once a hop"""
    three(eps, schedule, x0, path, noise)
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def wrong_library(eps, schedule, x0, path, noise):
    """refuses while your answer runs"""
    from coursekit.diffusion import elbo

    nats = sum(term.nats for term in elbo.terms(eps, schedule, x0, path))
    return nats / (x0[0].numel() * math.log(2))


def right_three_terms(eps, schedule, x0, path, noise):
    a, b, c = three(eps, schedule, x0, path, noise)
    return (a + sum(b) + c) / (x0[0].numel() * math.log(2))


def right_by_errors_of_the_noise(eps, schedule, x0, path, noise):
    big, sums = x0.double(), 0.0
    for i, (t, s) in enumerate(pairwise(path)):
        now, then = schedule.level(t), schedule.level(s)
        x = now**0.5 * x0 + (1 - now) ** 0.5 * noise[i]
        e = eps(x, t)
        if s:
            var = beta_tilde(schedule, t, s)
            beta = 1 - now / then
            weight = beta**2 / (2 * var * (1 - beta) * (1 - now))
            sums = sums + weight * total((noise[i] - e).double() ** 2)
        else:
            guess = (x - (1 - now) ** 0.5 * e) / now**0.5
            sums = sums - total(discretised(x0, guess, math.sqrt(var)))
    top = schedule.level(path[0])
    sums = sums + total(top * big**2 - top - math.log1p(-top)) / 2
    return (sums / x0[0].numel() / math.log(2)).to(x0.dtype)
