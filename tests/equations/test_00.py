"""Numeric twins of lecture 00: its two formulas, met by diffusers' schedulers."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from coursekit.diffusion.schedule import Schedule

from . import exact, mutated

equation = pytest.mark.equation
COSINE = Schedule.cosine()
PEER = {"beta_schedule": "squaredcos_cap_v2"}  # the cosine schedule; single precision


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@equation("00.1")
@mutated(power=1, one=1.1, sign=-1)
def test_noising_is_that_of_diffusers(power=0.5, one=1, sign=1):
    peer, (x0, noise), off = DDPMScheduler(**PEER), normal(2, 4, 3, 8, 8), []
    for t in (1, 100, 500, 700, 999):  # theirs counts from 0
        level = COSINE.level(t)
        ours = level**power * x0 + sign * (one - level) ** power * noise
        theirs = peer.add_noise(x0, noise, torch.tensor([t - 1]))
        off.append(exact(ours, theirs, tolerance=1e-4))
    return max(off)


@equation("00.2")
@mutated(sign=-1, power=1, one=1.1)
def test_the_step_is_that_of_diffusers(sign=1, power=0.5, one=1):
    peer = DDIMScheduler(**PEER, clip_sample=False, set_alpha_to_one=True)
    peer.set_timesteps(10)
    (x, noise), off = normal(2, 4, 3, 8, 8, seed=1), []
    for t, s in pairwise([901, 801, 501, 101, 1]):
        then = COSINE.level(s)
        guess = (x - math.sqrt(1 - COSINE.level(t)) * noise) / math.sqrt(COSINE.level(t))
        ours = then**power * guess + sign * (one - then) ** power * noise
        if t - s == 100:  # the hop of their ten steps
            off.append(exact(ours, peer.step(noise, t - 1, x).prev_sample, tolerance=1e-4))
        mixed = COSINE.noise(COSINE.denoise(x, noise, t), noise, s)  # any hop, by the package
        off.append(exact(ours, mixed, tolerance=1e-6))
    return max(off)
