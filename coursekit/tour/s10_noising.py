"""Noise, and the way back.

A diffusion model learns one thing: to see how much of a picture is noise. Noise is mixed into a
portrait little by little until nothing else is left, and the model is asked to guess the portrait
that it started from. The guess is blurred where the noise hides everything, and becomes sharp as
the noise goes.

Sampling turns this round. It starts from nothing but noise and believes only a little of each
guess before it guesses again. The person at the end was never anywhere before.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import ddpm
from coursekit.tour import Context

STEPS = 50
SHARES = (0.1, 0.25, 0.4, 0.6, 0.8, 1.0)  # of T


def make(context: Context) -> Iterator[Figure]:
    yield forward(context)
    yield backward(context)


def forward(context: Context) -> Figure:
    """One portrait at several levels of noise, and one guess at each."""
    schedule, x0, z = context.schedule, context.pictures(1), context.noise(1)
    times = [round(share * schedule.T) for share in SHARES]
    noisy = [schedule.noise(x0, z, t) for t in times]
    guesses = [schedule.denoise(x, context.eps(x, t), t).clamp(-1, 1)
               for x, t in zip(noisy, times, strict=True)]
    return sheet(
        torch.cat([x0, *noisy, x0, *guesses]), ["portrait", *(f"t = {t}" for t in times)],
        ["with noise", "guessed\nin one go"],
        alt="A portrait drowns in noise from left to right; below, the model's guess of it goes "
            "from nearly exact to a vague face.",
        caption="Above: the portrait with more and more noise. Below: the portrait that the model "
                "sees in it, in a single guess. Where does the person become another one?")


def backward(context: Context) -> Figure:
    """A new portrait from pure noise: what is there on the way, and what is guessed."""
    path = context.schedule.trailing(STEPS)
    wanted = {path[round(STEPS * (1 - share))] for share in SHARES}
    states = list(ddpm(context.eps, context.schedule, context.noise(1), path,
                       generator=context.generator()))
    # a state holds the guess that led to it; the guess made *at* a time comes with the next one
    pairs = [(s, n) for s, n in zip(states, states[1:], strict=False) if s.t in wanted]
    columns = [f"t = {s.t}" for s, _ in pairs] + ["t = 0"]
    x = [s.x for s, _ in pairs] + [states[-1].x]
    guesses = [n.x0.clamp(-1, 1) for _, n in pairs] + [states[-1].x]
    return sheet(
        torch.cat(x + guesses), columns, ["on the way", "guessed"],
        alt="Noise turns into a new portrait from left to right; the guesses below begin as a "
            "blur and settle early on a face.",
        caption=f"From noise to a portrait in {STEPS} steps. The guesses settle on pose and "
                "background first, then on the face, then on the hair and the grain.")
