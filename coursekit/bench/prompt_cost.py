"""What control costs: a Prompt-to-Prompt pair beside the same two images without control.

The peer draws both prompts from one noise in one batch, 50 hops under the same guidance; bars:
1.25 x its time, 1.3 x its peak memory. Drawing alone is timed, as the decoder's share would only
hide what control costs. Plug-and-Play and MasaCtrl, with the states of the source at hand, beside
the same two images; then a pair beside diffusers' own pipeline, and the seconds of null-text.

Memory on a CPU is that of a process for each, which does nothing else: what it holds at most, as
the kernel saw it since the model was loaded and had run once, so that neither loading nor the
parent counts. Once in all, and once above what it held before it drew; for the second, freed
memory must go back to the kernel at once, and PAIRS are drawn together, or it were Python's own
noise. Linux alone tells this; on a GPU torch's allocator does. About ten minutes on two cores.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from coursekit import pretrained
from coursekit.bench import Row, medians
from coursekit.bench._edits import task
from coursekit.bench.guided_inversion import Job, null_text_alone
from coursekit.diffusion.sample import ddim, last
from coursekit.edits import masactrl, p2p, pnp
from coursekit.nets.blend import Blend
from coursekit.nets.latent import Latent
from coursekit.recipes import portraits_sd

STEPS, RUNS, W = 50, 9, 7.5
PROMPT, TARGET = "a photo of a cat on a beach", "a photo of a dog on a beach"
PAIRS, PROCESSES = 8, 3
MEMORY_STEPS = 6  # hops: enough for windows to open and close
BARS = {"time": 1.25, "memory": 1.3}
TWO, PAIR = "two images", "Prompt-to-Prompt, a pair"
METHODS = (TWO, PAIR, f"{PAIR} with a blend", "Plug-and-Play, an edit", "MasaCtrl, an edit")
RESET = Path("/proc/self/clear_refs")  # "5" makes the kernel forget the highest it has seen
STATUS = Path("/proc/self/status")
RETURNED = {f"MALLOC_{name}_THRESHOLD_": "65536" for name in ("MMAP", "TRIM")}  # glibc's


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Time, then memory, then null-text."""
    yield from times(pretrained.load_latent(portraits_sd.NAME, device), seed)
    yield from memory(device, seed)
    sd, some = pretrained.load_latent(portraits_sd.NAME, device), task(["subject"], 1, seed, device)
    with torch.no_grad():
        yield null_text_alone(Job(sd, some, sd.encode(some.truth.source), sd.path(STEPS)))


def works(sd: Latent, seed: int, b: int = 1, steps: int = STEPS) -> dict[str, Callable[[], None]]:
    """METHODS on b pairs, ready to run; each returns when its work is done."""
    path, z = sd.path(steps), sd.noise(b, torch.Generator().manual_seed(seed))
    source = list(ddim(sd.eps(PROMPT, w=W), sd.schedule, z, path))

    def two() -> torch.Tensor:
        eps = sd.eps([PROMPT] * b + [TARGET] * b, w=W)
        return last(ddim(eps, sd.schedule, torch.cat([z, z]), path)).x

    def pair(**more: Blend) -> torch.Tensor:
        return last(p2p.pair(sd, z, PROMPT, TARGET, path, w=W, **more)).x

    makers = (two, pair, lambda: pair(blend=Blend("cat", "dog")),
              lambda: pnp.edit(sd, source, PROMPT, TARGET, path, w=W),
              lambda: masactrl.edit(sd, source, PROMPT, TARGET, path, w=W))
    return {name: partial(_done, make) for name, make in zip(METHODS, makers, strict=True)}


def _done(make: Callable[[], torch.Tensor]) -> None:
    with torch.no_grad():
        make().sum().item()  # waits for a GPU


# ---- time -----------------------------------------------------------------------------------


def times(sd: Latent, seed: int, steps: int = STEPS, runs: int = RUNS) -> Iterator[Row]:
    """Medians of interleaved runs, one row a method; then the pair beside diffusers' pipeline."""
    todo = works(sd, seed, steps=steps)
    two, *others = medians(*todo.values(), n=runs)
    for name, seconds in zip(list(todo)[1:], others, strict=True):
        yield Row(f"{name}; peer: {TWO}{_bar(name, 'time')}", seconds, two, "s", "lower", runs)
    ours, theirs = medians(todo[PAIR], _pipeline(sd, seed, steps), n=runs)
    yield Row(f"{PAIR}; peer: StableDiffusionPipeline, {TWO}", ours, theirs, "s", "lower", runs)


def _pipeline(sd: Latent, seed: int, steps: int) -> Callable[[], None]:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(sd.source).to(sd.device)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    z = sd.noise(1, torch.Generator().manual_seed(seed))
    return partial(_done, lambda: pipe([PROMPT, TARGET], latents=torch.cat([z, z]),
                                       guidance_scale=W, num_inference_steps=steps,
                                       output_type="latent").images)


def _bar(name: str, kind: str) -> str:
    return f", bar {BARS[kind]:g} x" if name.startswith("Prompt-to-Prompt") else ""


# ---- memory ---------------------------------------------------------------------------------


def memory(device: str, seed: int, steps: int = MEMORY_STEPS,
           processes: int = PROCESSES) -> Iterator[Row]:
    """What each method holds at most, of all and above what it holds before; medians."""
    if not (device.startswith("cuda") or RESET.exists()):
        return  # no kernel that tells
    peaks: dict[str, list[Peak]] = {}
    for _ in range(processes):
        for name in METHODS:
            peaks.setdefault(name, []).append(peak_of(name, device, seed, steps))
    two, *others = METHODS
    for part, says in (("whole", "all that is held"), ("above", f"above the model, {PAIRS} pairs")):
        found = {name: median(getattr(p, part) for p in some) / 2**20
                 for name, some in peaks.items()}
        for name in others:
            yield Row(f"{name}: {says}; peer: {two}{_bar(name, 'memory')}", found[name],
                      found[two], "MiB", "lower", processes)


@dataclass(frozen=True)
class Peak:
    """Bytes held at most while a method ran for the second time: in all, and above those before."""

    whole: int
    above: int


def peak_of(name: str, device: str, seed: int, steps: int) -> Peak:
    """On a CPU in a process of its own: a child's figure, and not its parent's."""
    if device.startswith("cuda"):
        return _measured(name, device, seed, steps)
    code = ("from coursekit.bench import prompt_cost as cost; from dataclasses import astuple; "
            f"print(*astuple(cost._measured({name!r}, {device!r}, {seed}, {steps})))")
    child = subprocess.run([sys.executable, "-c", code], env=os.environ | RETURNED, check=False,
                           capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError(f"{name}: the process that measures it ended with "
                           f"{child.stderr.strip().splitlines()[-1]}")
    return Peak(*map(int, child.stdout.split()))


def _measured(name: str, device: str, seed: int, steps: int) -> Peak:
    run = works(pretrained.load_latent(portraits_sd.NAME, device), seed, PAIRS, steps)[name]
    run()
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        peak = torch.cuda.max_memory_allocated(device)
    else:
        before = held("VmRSS")
        RESET.write_text("5")
        run()
        peak = held("VmHWM")
    return Peak(peak, peak - before)


def held(field: str) -> int:
    """Bytes of this process, by the kernel: VmRSS now, VmHWM at most since RESET."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())[1])
