"""Training a noise predictor: one flat loop, as a generator that yields a record an update.

    for k in 0 .. steps-1:
        x0           <- batches(k)
        t, eps       <- uniform in 1..T, standard normal
        x_t          =  sqrt(abar_t) x0 + sqrt(1 - abar_t) eps
        loss         =  w_t || net(x_t, t) - target ||^2       DDPM (Ho 2020), eq. 14
        net          <- Adam;  ema <- d ema + (1 - d) net

The target is eps, x0 or v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0 (Salimans & Ho 2022, eq. 15);
w_t is 1 or the min-SNR weight (Hang et al. 2023), with a floor where the condition decides. What
step k draws depends on the seed and k alone, so a run that was interrupted and resumed is the run
that was not.

A pair of pictures that are alike but for a word may share x_t. It was made of one of them; had it
been made of the other, eps' = (x_t - sqrt(abar_t) x0') / sqrt(1 - abar_t) would have been its
noise. Both conditions are asked about it, and an answer counts by the odds p ~ exp(-||eps||^2 / 2)
that it was made of that picture: the expected loss is the usual one (Rao and Blackwell), but no
noise hides how far the word should move the answer.
"""

import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coursekit.diffusion.schedule import Schedule

Batch = Tensor | tuple[Tensor, Mapping[str, Any]]
Times = Callable[[int, torch.Generator], Tensor]
TOLD = 8.0  # log odds: so many, and a noisy picture tells of which of two pictures it was made


@dataclass(frozen=True)
class Update:
    """What is known after an update.

    step, steps        updates done, and the planned number
    images             images seen so far, on all devices and in all earlier runs
    loss, grad_norm    of this update; the norm before clipping
    lr                 the learning rate of this update
    seconds            spent training so far, earlier runs included
    images_per_second  since the previous record, on all devices
    ema                the averaged network: read it, save it, do not change it
    """

    step: int
    steps: int
    images: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    images_per_second: float
    ema: nn.Module | None = None


def train(
    net: nn.Module, batches: Callable[[int], Batch], schedule: Schedule, *, steps: int,
    prediction: str = "v", lr: float = 3e-4, warmup: int = 200, decay: float = 0.5,
    ema: float = 0.999, clip: float = 1.0, min_snr: float | None = None, floor: float = 0.0,
    contrast: float | None = None, times: Times | None = None,
    autocast: torch.dtype | None = None, channels_last: bool = False,
    checkpoint: Path | None = None, every: float = 300.0, resume: bool = True,
    seconds: float | None = None, seed: int = 0, accelerator: Any = None,
) -> Iterator[Update]:
    """Trains `net` in place and yields an `Update` after each step; the last `.ema` is the result.

    net          called net(x_t (b, ...), t (b,) in 1..T, **conditions)
    batches      batches(k) -> x0 (b, ...) in [-1, 1], or (x0, conditions): a pure function of k
                 with a constant b. With n devices, device r is given batches(k * n + r).
    prediction   what the network learns to say: "v", "eps" or "x0"
    warmup       updates over which lr rises from 0
    decay        share of the run at whose end lr has fallen to 0 along a cosine; 0 for none
    ema          largest decay d of the average; d starts at 0.1 and grows with the steps
    clip         largest norm of the gradient
    min_snr      gamma of the min-SNR weight (5 in the paper); None: every time counts alike
    floor        least weight of an error in x0 under min_snr: 1 is the truncated SNR of Salimans &
                 Ho 2022; with 0 the noisiest times, where only a caption can tell, hardly count
    contrast     how much the difference of the errors of pictures 2i and 2i + 1 counts beside their
                 mean; 1 is the usual loss. A batch then holds pairs that are alike but for one
                 word of the condition, and both conditions are asked about one noisy picture, made
                 of either: what the word alone should change is then known without noise. None: no
                 pairs
    times        times(n, generator) -> (n,) in 1..T for n pictures, or n pairs under contrast, in
                 the order of the batch. None: one from each of n equal slices of 1..T
    autocast     torch.bfloat16 or None for float32; `fast_dtype` decides
    checkpoint   file to write every `every` seconds, at Ctrl-C and at the end; where it exists and
                 `resume` is true, training goes on from it, bit for bit on a CPU
    seconds      stop after so much training; lr then follows the clock where that is ahead
    accelerator  an `accelerate.Accelerator` for several devices or its mixed precision

    Raises ValueError for arguments out of range and a checkpoint of another network,
    FloatingPointError when the loss is no longer finite, OSError naming the file when a checkpoint
    cannot be written; the one before it then stays as it was. A run that was finished before
    yields one record, without a loss (nan).
    """
    _check(prediction, steps, lr, decay, ema, clip, min_snr, floor, contrast, seconds)
    device = next(net.parameters()).device if accelerator is None else accelerator.device
    ranks, rank = (1, 0) if accelerator is None else (accelerator.num_processes,
                                                      accelerator.process_index)
    net.to(device, memory_format=torch.channels_last if channels_last else torch.preserve_format)
    net.train()
    average = deepcopy(net).eval().requires_grad_(False)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    parts = {"net": net, "ema": average, "optimiser": optimiser}
    done = {"step": 0, "images": 0, "seconds": 0.0}
    if checkpoint is not None and resume and checkpoint.exists():
        done = _restore(checkpoint, parts)
    elif checkpoint is not None and rank == 0:
        # A full disk or a missing permission shows now, not after an hour.
        _save(checkpoint, parts, done, _rng_states())
    net_, optimiser_ = (net, optimiser) if accelerator is None else accelerator.prepare(
        net, optimiser)
    if done["step"] == 0:  # several devices now hold the first one's weights
        average.load_state_dict(net.state_dict())
    draws = torch.Generator()
    if done["step"] >= steps:  # nothing left to do, but the caller wants the result
        yield Update(done["step"], steps, done["images"], math.nan, math.nan, 0.0,
                     done["seconds"], math.nan, average)

    random_states, updating = _rng_states(), False
    last_save = time.perf_counter()
    try:
        while done["step"] < steps and (seconds is None or done["seconds"] < seconds):
            start = time.perf_counter()
            k = done["step"]
            random_states = _rng_states()
            progress = max(k / steps, done["seconds"] / seconds if seconds else 0.0)
            share = _lr_share(k, warmup, progress, decay)
            for group in optimiser.param_groups:
                group["lr"] = lr * share

            x0, conditions = _unpack(batches(k * ranks + rank), device, channels_last)
            draws.manual_seed(_mix(seed, k * ranks + rank))
            b = len(x0)
            t, eps = _draw(x0, 1 if contrast is None else 2, schedule.T, times, draws)
            odds = None
            if contrast is not None:
                eps, odds = _shared(x0, eps, t, schedule, draws)
            x_t = schedule.noise(x0, eps, t)
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                out = net_(x_t, t.to(device), **conditions)
            loss = _loss(out.float(), x0, eps, t, schedule, prediction, min_snr, floor, odds,
                         contrast)

            optimiser_.zero_grad(set_to_none=True)
            if accelerator is None:
                loss.backward()
                norm = nn.utils.clip_grad_norm_(net_.parameters(), clip)
            else:
                accelerator.backward(loss)
                norm = accelerator.clip_grad_norm_(net_.parameters(), clip)
            said = float(loss.detach())
            if not math.isfinite(said) or not math.isfinite(float(norm)):
                raise FloatingPointError(f"loss is {said} and its gradient {float(norm)} at step "
                                         f"{k}: try a smaller lr (now {lr:g}) or float32")

            updating = True  # from here to the end of the update the parts do not fit together
            optimiser_.step()
            _average(average, net, min(ema, (1 + k) / (10 + k)))
            took = _agreed(time.perf_counter() - start, accelerator)
            done = {"step": k + 1, "images": done["images"] + b * ranks,
                    "seconds": done["seconds"] + took}
            random_states, updating = _rng_states(), False

            if checkpoint is not None and time.perf_counter() - last_save >= every:
                if rank == 0:
                    _save(checkpoint, parts, done, random_states)
                last_save = time.perf_counter()
            yield Update(done["step"], steps, done["images"], said, float(norm),
                         optimiser.param_groups[0]["lr"], done["seconds"], b * ranks / took,
                         average)
    except (KeyboardInterrupt, GeneratorExit):
        if checkpoint is not None and rank == 0 and not updating:
            _save(checkpoint, parts, done, random_states)
        raise
    if checkpoint is not None and rank == 0:
        _save(checkpoint, parts, done, random_states)


def fast_dtype(device: torch.device | str) -> torch.dtype | None:
    """torch.bfloat16 where training in it is faster than in float32, else None.

    The hardware is asked and no clock, so that a run that is resumed on the machine where it was
    stopped goes on in the same arithmetic. A processor without bf16 units computes it correctly,
    but up to ten times slower.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    units = torch.cpu.get_capabilities()
    return torch.bfloat16 if units.get("avx512_bf16") or units.get("amx_bf16") else None


# ---- one step -------------------------------------------------------------------------------


def sliced(n: int, T: int, draws: torch.Generator) -> Tensor:
    """One time from each of n equal slices of 1..T (n,): uniform, with less noise in the loss."""
    u = (torch.rand(n, generator=draws) + torch.arange(n)) / n
    return (u * T).long().clamp(max=T - 1) + 1


def _draw(x0: Tensor, alike: int, T: int, times: Times | None,
          draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times (b,) and noise like x0; so many pictures after each other share theirs."""
    b = len(x0)
    if b % alike:
        raise ValueError(f"batches give {b} pictures: under contrast accepted is an even number")
    b //= alike
    t = sliced(b, T, draws) if times is None else times(b, draws)
    if t.shape != (b,) or t.min() < 1 or t.max() > T:
        raise ValueError(f"times({b}, generator) gives {tuple(t.shape)} numbers in "
                         f"{t.min()}..{t.max()}: accepted are ({b},) in 1..{T}")
    eps = torch.randn((b, *x0.shape[1:]), generator=draws).to(x0)
    return t.repeat_interleave(alike), eps.repeat_interleave(alike, 0)


def _shared(x0: Tensor, eps: Tensor, t: Tensor, schedule: Schedule,
            draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """The noises that make one noisy picture of the two of a pair, like eps, which they share.

    Beside them the odds (b/2, 2) that it was made of the one or the other. Where it would tell,
    each keeps a noisy picture of its own, and the odds are nan.
    """
    a, s = schedule.scales(t[::2], x0[::2])
    apart = a / s * (x0[::2] - x0[1::2])
    told = apart.square().flatten(1).sum(1) / 2 > TOLD
    apart[told] = 0
    second = (torch.rand(len(apart), generator=draws) < 0.5).to(x0.device)  # it is made of that
    both = eps.unflatten(0, (-1, 2)).clone()
    both[:, 1] += apart
    both[second] -= apart[second, None]
    odds = (-both.square().flatten(2).sum(2) / 2).softmax(1)
    odds[told] = math.nan
    return both.flatten(0, 1), odds


def _loss(out: Tensor, x0: Tensor, eps: Tensor, t: Tensor, schedule: Schedule, prediction: str,
          min_snr: float | None, floor: float = 0.0, odds: Tensor | None = None,
          contrast: float | None = 1.0) -> Tensor:
    a, b = schedule.scales(t, x0)  # sqrt(abar_t), sqrt(1 - abar_t)
    target = {"eps": lambda: eps, "x0": lambda: x0, "v": lambda: a * eps - b * x0}[prediction]()
    wrong = out - target
    if min_snr is not None:
        snr = schedule.abar[t.cpu()] / (1 - schedule.abar[t.cpu()])  # float64, b
        # An error in x0 counts SNR, but floor at least and gamma at most; an error in eps is SNR
        # times, one in v SNR + 1 times smaller than the error in x0 that it makes.
        w = snr.clamp(floor, min_snr) / {"eps": snr, "x0": 1.0, "v": snr + 1}[prediction]
        wrong = w.sqrt().to(out).view(a.shape) * wrong
    if odds is None:
        return wrong.square().mean()
    # p e^2 + q e'^2 = (p e + q e')^2 + p q (e - e')^2 with p + q = 1
    wrong, told = wrong.unflatten(0, (-1, 2)).flatten(2), odds.isnan()[:, 0]
    p = odds.nan_to_num(0.5)[..., None]
    middle = (p * wrong).sum(1).square().mean(1)
    apart = p.prod(1)[:, 0] * (wrong[:, 0] - wrong[:, 1]).square().mean(1)
    return (middle + torch.where(told, 1.0, contrast) * apart).mean()


def _lr_share(k: int, warmup: int, progress: float, decay: float) -> float:
    rise = min(1.0, (k + 1) / (warmup + 1))
    if decay <= 0 or progress <= 1 - decay:
        return rise
    fall = min(1.0, (progress - (1 - decay)) / decay)
    return rise * 0.5 * (1 + math.cos(math.pi * fall))


@torch.no_grad()
def _average(average: nn.Module, net: nn.Module, d: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - d)
    for mine, theirs in zip(average.buffers(), net.buffers(), strict=True):
        mine.copy_(theirs)


def _agreed(seconds: float, accelerator: Any) -> float:
    """The mean over the devices: with clocks of their own they would not stop together."""
    if accelerator is None:
        return seconds
    return float(accelerator.reduce(torch.tensor(seconds, device=accelerator.device), "mean"))


def _unpack(batch: Batch, device: torch.device,
            channels_last: bool) -> tuple[Tensor, dict[str, Any]]:
    x0, conditions = batch if isinstance(batch, tuple) else (batch, {})
    layout = torch.channels_last if channels_last else torch.preserve_format
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in conditions.items()}
    return x0.to(device, memory_format=layout), moved


def _mix(seed: int, k: int) -> int:
    """A seed for draw k of a run: two odd constants keep neighbours apart (splitmix64)."""
    z = (seed * 0x9E3779B97F4A7C15 + k * 0xBF58476D1CE4E5B9) % 2**64
    return (z ^ (z >> 31)) % 2**63


# ---- checkpoints ----------------------------------------------------------------------------


def _rng_states() -> dict[str, Any]:
    """The global generators: only dropout draws from them here."""
    return {"cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []}


def _save(file: Path, parts: Mapping[str, Any], done: Mapping[str, Any],
          random_states: Mapping[str, Any]) -> None:
    """Writes the checkpoint whole or not at all."""
    content = io.BytesIO()
    torch.save({**{k: v.state_dict() for k, v in parts.items()}, **done, "rng": random_states},
               content)
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise OSError(problem.errno, problem.strerror, str(file)) from problem


def _restore(file: Path, parts: Mapping[str, Any]) -> dict[str, Any]:
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["rng"]["cpu"])
        if saved["rng"]["cuda"] and len(saved["rng"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved["rng"]["cuda"])
        return {k: saved[k] for k in ("step", "images", "seconds")}
    except OSError:
        raise
    except Exception as problem:  # torch and pickle each raise their own
        why = " ".join(f"{type(problem).__name__} {problem}".split())[:120]
        raise ValueError(f"checkpoint '{file}' is damaged or of another network ({why}): "
                         "delete it or use another folder") from problem


def _check(prediction: str, steps: int, lr: float, decay: float, ema: float, clip: float,
           min_snr: float | None, floor: float, contrast: float | None,
           seconds: float | None) -> None:
    if prediction not in ("v", "eps", "x0"):
        raise ValueError(f"prediction={prediction!r}: accepted are v, eps, x0")
    if steps < 1:
        raise ValueError(f"steps={steps}: accepted is a whole number >= 1")
    if not 0 <= decay <= 1 or not 0 <= ema < 1:
        raise ValueError(f"decay={decay}, ema={ema}: accepted are 0..1 and 0 <= ema < 1")
    for name, value in (("lr", lr), ("clip", clip), ("min_snr", min_snr), ("contrast", contrast),
                        ("seconds", seconds)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value}: accepted is a number > 0")
    if not 0 <= floor <= (min_snr or 0):
        raise ValueError(f"floor={floor}: accepted is 0 <= floor <= min_snr, which is {min_snr}")
