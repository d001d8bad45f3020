"""The judge of the Portraits world: attributes, identity and parts in one small network.

The set is rendered once into the cache folder: three chunks in five of the full world, two of
the training distribution; one chunk in three with a map of its parts. Rows 2i and 2i + 1 are twins
that differ in one thing: the error of the difference of their readings is about that thing alone.
Mirrored copies are exact but for a glint in the eye, once the signs of yaw, roll and light are
turned. Weak noise and blur keep the judge from leaning on the film grain, which a generator does
not draw. The set, batch k and its noise depend on the seed and k alone: a run that was killed goes
on as if it had not been, and another seed is another set.

With `start` the trunk and the parts stay as they are and only the readings learn: whatever was
measured in FID_w or LPIPS_w still stands.

Several processes share the work under `torchrun`; on a CPU one process a core, OMP_NUM_THREADS=1,
waits once an update instead of once a layer, which is worth it on a busy machine.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from coursekit import images, portraits, pretrained
from coursekit.diffusion.train import fast_dtype
from coursekit.nets.judge import MIDDLES, READ, SPREADS, Judge, Reading
from coursekit.portraits import CATEGORICAL, IDENTITY, TRAINING, Portraits, truth
from coursekit.portraits.attributes import HUMANS
from coursekit.recipes import cache_folder, fresh
from coursekit.recipes._changes import fitting, moved
from coursekit.recipes._muon import BETAS, Muon

NAME = "judge"
CHUNK, CHUNKS = 512, 1024
BATCH, STEPS, LR, DECAY = 96, 12_000, 2e-3, 0.02
GENTLE = 1e-3  # the learning rate where training begins with given weights
CONFIG = {"depths": (1, 2, 2, 1), "detail": 256, "face": 256}
TINY = {"config": {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "summary": 16, "detail": 8,
                   "face": 8, "tower": ((8, 1), (8, 1), (8, 1))},
        "chunk": 16, "chunks": 5, "batch": 8, "steps": 20}
LOG_SECONDS, SAVE_SECONDS = 30.0, 120.0
KEPT = ("levels", "lateral", "refine", "parts")
"""What stays as it is where training begins with given weights: what FID_w, LPIPS_w and the parts
are made of, so that what was measured with these stays comparable."""
CARE = {"smile": 6.0, "age": 3.0, "ageing": 6.0, "hair_style": 3.0, "hair_colour": 2.0,
        **{name: 2.5 for name in IDENTITY}}
"""How much an attribute's error counts, beside 1 for the others."""
TWINS = 2.0
"""How much the error of the difference of twins' readings counts."""
OLD = 0.4
"""From this age on the styles of ageing can be told apart."""
CHANGED = {"smile": 4, "age": 1.5, "ageing": 3, "hair_style": 2, "hair_colour": 2,
           **{name: 0.4 for name in IDENTITY}}
"""What twins may differ in, and how readily."""
ALIKE = ("bob", "bangs")
"""Hair styles that are easily taken for each other."""
SETTLING = 15_360
"""How many pictures the statistics of batch norms are taken from in the end."""
MIRRORED = [READ.index(name) for name in ("yaw", "roll", "light")]
DRAWING = ("attributes", "scene", "anatomy", "wardrobe", "backgrounds", "styles", "noise", "render")


@dataclass(frozen=True)
class Progress:
    """step of steps, images seen, loss of the update, seconds of training, images_per_second.

    While the set is rendered, step is 0, images are those drawn so far and the loss is NaN.
    """

    step: int
    steps: int
    images: int
    loss: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Batch:
    """x (b, 3, 64, 64), codes {name: (b,)}, weights {name: (b,)} that are 0 where the attribute
    cannot be seen, values (b, 17) standardised, maps (m, 64, 64) of the rows `mapped`."""

    x: Tensor
    codes: dict[str, Tensor]
    weights: dict[str, Tensor]
    values: Tensor
    maps: Tensor
    mapped: Tensor


def run(out: Path, *, data: Path | None = None, steps: int | None = None,
        minutes: float | None = None, start: str | None = None, resume: bool = True,
        device: str = "cpu", seed: int = 0, tiny: bool = False) -> Iterator[Progress]:
    """Trains it in `out`; arguments as in `coursekit.recipes`. data is refused: it is rendered."""
    if data is not None:
        raise ValueError(f"data='{data}': the judge renders its own pictures; leave it out")
    chunk, chunks, batch = (TINY[k] for k in ("chunk", "chunks", "batch")) if tiny else (
        CHUNK, CHUNKS, BATCH)
    folder = cache_folder() / f"judge-twins-{chunk}x{chunks}-{seed}-{world()}"
    ranks, rank = gather(device)
    yield from draw(folder, chunk, chunks, seed, device, ranks, rank)
    net = begin(start, TINY["config"] if tiny else CONFIG, seed)
    steps = steps or (10**9 if minutes else TINY["steps"] if tiny else STEPS)
    out.mkdir(parents=True, exist_ok=True)
    renders = Renders(folder, chunk, batch // ranks, seed)
    yield from fit(out, net.to(device), renders, steps=steps, resume=resume, device=device,
                   seconds=60 * minutes if minutes else None, lr=GENTLE if start else LR, muon=True)
    if rank == 0:
        settle(net, renders, device)
        pretrained.save(out, net, net.config)


def begin(start: str | None, config: dict, seed: int) -> Judge:
    """A fresh judge, or the weights that `start` names with KEPT frozen.

    A second look that those lack begins fresh, and nothing is read from it at first.
    """
    if start is None:
        return fresh(Judge, config, seed)
    net = pretrained.load(start).net
    if not isinstance(net, Judge):
        raise ValueError(f"start='{start}' is a {type(net).__name__}: accepted is a Judge")
    if not net.config["face"]:
        second = {k: config[k] for k in ("face", "tower") if k in config}
        old, net = net, fresh(Judge, net.config | second, seed)
        state = old.state_dict()
        for name, wide in net.state_dict().items():
            if name in state and state[name].shape != wide.shape:  # a head
                state[name] = F.pad(state[name], (0, wide.shape[1] - state[name].shape[1]))
        net.load_state_dict(net.state_dict() | state)
    for name in KEPT:
        getattr(net, name).requires_grad_(False)
    return net


def learn(net: nn.Module) -> None:
    """Training mode, except for batch norms that are frozen: their statistics stay too."""
    net.train()
    for module in net.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


@torch.no_grad()
def settle(net: Judge, renders: "Renders", device: str) -> None:
    """Gives batch norms that learn the statistics over SETTLING pictures, in place of the moving
    averages of training, which hold but its last few batches (Wu & Johnson 2021, section 3)."""
    learn(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.training:
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    for k in range(min(SETTLING, len(renders.records)) // renders.batch):
        x = renders(k).x.to(device)
        features = net.features(x)
        net.read(x, features)
        net.segment(features)


def gather(device: str) -> tuple[int, int]:
    """How many processes share the work, and which this is: (1, 0) without `torchrun`."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 1, 0
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return distributed.get_world_size(), distributed.get_rank()


# ---- the set --------------------------------------------------------------------------------


def records(k: int, chunk: int, seed: int = 0) -> Portraits:
    """The portraits of chunk k: twins beside each other, in rows 2i and 2i + 1."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + k)
    first = portraits.sample(chunk // 2, generator, **({} if k % 5 < 3 else TRAINING))
    both = portraits.stack(first, twins(first, generator))
    return both[torch.arange(chunk).view(2, -1).T.flatten()]


def twins(p: Portraits, generator: torch.Generator) -> Portraits:
    """Everyone with one attribute of CHANGED moved, of those that can be seen in them."""
    hair = ~p.where("hair_style", "bald")
    shown = {"ageing": p.age > OLD, "hair_style": p.where("subject", *HUMANS), "hair_colour": hair}
    odds = torch.stack([share * shown.get(name, torch.ones_like(hair))
                        for name, share in CHANGED.items()], 1)  # b names
    which = torch.multinomial(odds, 1, generator=generator)[:, 0]
    others = []
    for name in CHANGED:
        value = moved(p, name, generator)
        if name == "hair_style":
            alike = torch.rand(len(p), generator=generator) < 0.5
            value = torch.where(alike & p.where(name, *ALIKE), mistaken(p), value)
        others.append(fitting(p.replace(**{name: value})))
    return portraits.stack(*others)[which * len(p) + torch.arange(len(p))]


def mistaken(p: Portraits) -> Tensor:
    """(b,) the other hair style of ALIKE."""
    bob, bangs = (CATEGORICAL["hair_style"].index(name) for name in ALIKE)
    return torch.where(p.hair_style == bob, bangs, bob)


def draw(folder: Path, chunk: int, chunks: int, seed: int, device: str, ranks: int = 1,
         rank: int = 0) -> Iterator[Progress]:
    """Renders what is missing of the set into `folder`: images.npy, labels.npy, done.npy. Every
    process draws its share, and leaves when all have."""
    folder.mkdir(parents=True, exist_ok=True)
    if rank > 0:
        distributed.barrier()  # rank 0 makes the files
    pixels = _array(folder / "images.npy", (chunks, chunk, 3, 64, 64))
    maps = _array(folder / "labels.npy", ((chunks + 2) // 3, chunk, 64, 64))
    done = _array(folder / "done.npy", (chunks,))
    if rank == 0 and ranks > 1:
        distributed.barrier()
    begun, drawn = time.perf_counter(), 0
    for k in range(rank, chunks, ranks):
        if done[k]:
            continue
        some = records(k, chunk, seed).to(device)
        pixels[k] = images.to_uint8(portraits.render(some)).cpu().numpy()
        if k % 3 == 0:
            maps[k // 3] = truth.labels(some).cpu().numpy()
        done[k] = 1
        drawn += chunk
        seconds = time.perf_counter() - begun
        yield Progress(0, 1, ranks * drawn, math.nan, seconds, ranks * drawn / seconds)
    if ranks > 1:
        distributed.barrier()


def _array(file: Path, shape: tuple[int, ...]) -> numpy.ndarray:
    if file.exists():
        return numpy.load(file, mmap_mode="r+")
    return numpy.lib.format.open_memmap(file, mode="w+", dtype=numpy.uint8, shape=shape)


def world() -> str:
    """Eight letters that change with what draws the set, so that no stale render is used."""
    folder = Path(portraits.__file__).parent
    content = b"".join((folder / f"{s}.py").read_bytes() for s in DRAWING) + repr(CHANGED).encode()
    return hashlib.sha256(content).hexdigest()[:8]


class Renders:
    """The set as batches: renders(k) -> Batch, twins mirrored alike, with weak noise and blur.

    ValueError if the batch is odd, so that twins would be parted.
    """

    def __init__(self, folder: Path, chunk: int, batch: int, seed: int) -> None:
        if batch % 2:
            raise ValueError(f"batch={batch} parts twins: accepted are even numbers; take another "
                             "number of processes")
        self.pixels = numpy.load(folder / "images.npy", mmap_mode="r")
        self.maps = numpy.load(folder / "labels.npy", mmap_mode="r")
        self.records = portraits.stack(
            *(records(k, chunk, seed) for k in range(len(self.pixels))))
        self.chunk, self.batch, self.seed = chunk, batch, seed
        self._epoch, self._order = -1, numpy.empty(0)

    def __call__(self, k: int) -> Batch:
        n = len(self.records) // self.batch
        epoch, place = divmod(k, n)
        if epoch != self._epoch:
            self._epoch = epoch
            pairs = numpy.random.default_rng((self.seed, epoch)).permutation(
                len(self.records) // 2)
            self._order = (2 * pairs[:, None] + numpy.arange(2)).flatten()
        rows = self._order[place * self.batch : (place + 1) * self.batch]
        chunk, row = rows // self.chunk, rows % self.chunk
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + k)
        x = images.from_uint8(torch.from_numpy(self.pixels[chunk, row]))
        with_map = numpy.flatnonzero(chunk % 3 == 0)
        maps = torch.from_numpy(self.maps[chunk[with_map] // 3, row[with_map]]).long()
        mapped = torch.from_numpy(with_map)
        some = self.records[torch.from_numpy(rows)]
        values = standardised(some)
        flip = (torch.rand(len(x) // 2, generator=generator) < 0.5).repeat_interleave(2)
        x[flip] = x[flip].flip(-1)
        maps[flip[mapped]] = maps[flip[mapped]].flip(-1)
        for column in MIRRORED:
            values[flip, column] *= -1
        return Batch(worn(x, generator), {a: getattr(some, a) for a in CATEGORICAL},
                     weights(some), values, maps, mapped)


def standardised(p: Portraits) -> Tensor:
    """(b, 17) what the judge should read: (value - middle) / spread, in the order of READ."""
    columns = [(getattr(p, name) - middle) / spread
               for name, middle, spread in zip(READ, MIDDLES, SPREADS, strict=True)]
    return torch.stack(columns, 1)


def weights(p: Portraits) -> dict[str, Tensor]:
    """1 where a categorical attribute can be seen at all, else 0; one (b,) tensor for each."""
    cast = p.where("style", "bronze")
    seen = {name: torch.ones(len(p)) for name in CATEGORICAL}
    seen["hair_colour"] = p.where("subject", *HUMANS).float()  # light or dark in bronze too
    seen["clothes"] = (~cast).float()
    seen["ageing"] = (p.age > OLD).float()
    seen["eyes"] = (~p.where("glasses", "sunglasses")).float()
    return seen


def worn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures with noise of up to 10 grey levels added, three in ten of them slightly blurred."""
    b = len(x)
    share = 0.6 * torch.rand(b, 1, 1, 1, generator=generator)
    share = share * (torch.rand(b, 1, 1, 1, generator=generator) < 0.3)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 2, 1)
    soft = F.avg_pool2d(soft, 2, 1)  # 2x2 twice: the binomial filter 1 2 1
    sigma = 0.04 * torch.rand(b, 1, 1, 1, generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    return (x + share * (soft - x) + sigma * noise).clamp(-1, 1)


# ---- the fit --------------------------------------------------------------------------------


def fit(out: Path, net: nn.Module, renders: Callable[[int], Any], *, steps: int, resume: bool,
        device: str, seconds: float | None, lr: float = LR,
        loss_of: Callable[..., Tensor] | None = None,
        leave: Callable[..., None] | None = None, muon: bool = False) -> Iterator[Progress]:
    """One cycle of the learning rate, which follows the clock where that is ahead.

    loss_of and leave stand in for `objective` and `export` where another network is trained.
    muon: the layers learn by Muon; else all by AdamW.
    """
    loss_of, leave = loss_of or objective, leave or export
    optimiser = Muon(net, lr, DECAY) if muon else torch.optim.AdamW(
        learning(net), lr=lr, betas=BETAS, weight_decay=DECAY, fused=True)
    checkpoint, done = out / "checkpoint.pt", {"step": 0, "seconds": 0.0}
    if resume and checkpoint.exists():
        done = restore(checkpoint, net, optimiser)
    ranks, rank = gather(device)
    dtype = fast_dtype(device)
    learn(net)
    logged = saved = done["seconds"]
    progress, updating, moved = None, False, 0.0
    try:
        while done["step"] < steps and (seconds is None or done["seconds"] < seconds):
            begun = time.perf_counter()
            share = max(done["step"] / steps, done["seconds"] / seconds if seconds else 0.0)
            for group in optimiser.param_groups:
                group["lr"] = lr * cycle(share)
            updating = True  # batch norm changes with the first layer: no checkpoint until the end
            loss = loss_of(net, renders(done["step"] * ranks + rank), device, dtype)
            optimiser.zero_grad()
            loss.backward()
            # The clock is averaged with the gradients: all must stop after the same update. So
            # what the optimiser takes counts one update late.
            took = time.perf_counter() - begun + moved
            said, took = agree(net, loss.detach(), took, ranks)
            if not math.isfinite(said):
                raise FloatingPointError(f"loss is {said} at step {done['step']}: lr {lr} is high")
            begun = time.perf_counter()
            optimiser.step()
            moved = time.perf_counter() - begun
            done = {"step": done["step"] + 1, "seconds": done["seconds"] + took}
            updating = False
            progress = Progress(done["step"], steps, done["step"] * ranks * renders.batch, said,
                                done["seconds"], ranks * renders.batch / took)
            if rank == 0 and done["seconds"] - logged > LOG_SECONDS:
                log(out, progress)
                logged = done["seconds"]
            if rank == 0 and done["seconds"] - saved > SAVE_SECONDS:
                save(checkpoint, net, optimiser, done)
                leave(out, net, done, renders, device, ranks)
                saved = done["seconds"]
            yield progress
    except (KeyboardInterrupt, GeneratorExit):
        if rank == 0 and progress is not None and not updating:
            save(checkpoint, net, optimiser, done)
        raise
    if rank == 0 and progress is not None:
        log(out, progress)
        save(checkpoint, net, optimiser, done)
        leave(out, net, done, renders, device, ranks)


def learning(net: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [p for p in net.parameters() if p.requires_grad]


def agree(net: nn.Module, loss: Tensor, took: float, ranks: int) -> tuple[float, float]:
    """Averages gradients, loss and seconds over all processes; gives the last two."""
    if ranks == 1:
        return float(loss), took
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning(net)]
    extra = torch.stack([loss, loss.new_tensor(took)])
    flat = torch.cat([g.flatten() for g in gradients] + [extra])
    distributed.all_reduce(flat)
    parts = (flat / ranks).split([g.numel() for g in gradients] + [2])
    for p, part in zip(learning(net), parts, strict=False):
        p.grad = part.view_as(p)
    return tuple(parts[-1].tolist())


def cycle(share: float) -> float:
    """The learning rate's share of its peak: up over the first 6% of the run, a cosine down."""
    if share < 0.06:
        return 0.04 + 0.96 * share / 0.06
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - 0.06) / 0.94))) + 1e-3


def objective(net: Judge, batch: Batch, device: str, dtype: torch.dtype | None = None) -> Tensor:
    """Twice the mean cross-entropy of the attributes, the likelihood of the continuous ones, and
    half the cross-entropy of the parts; attributes count as CARE says. Twins count besides by the
    difference of their readings. dtype: that of the network's arithmetic, None float32."""
    learns_parts = net.parts.weight.requires_grad and len(batch.mapped) > 0
    x = batch.x.to(device)
    with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
        features = net.features(x)
        low = net.read(x, features)
        if learns_parts:
            parts = net.segment([f[batch.mapped.to(device)] for f in features[:3]])
    reading = Reading({k: v.float() for k, v in low.logits.items()}, low.mean.float(),
                      low.log_var.float())
    total = 0.0
    for name, logits in reading.logits.items():
        each = F.cross_entropy(logits, batch.codes[name].to(device), reduction="none")
        weight = batch.weights[name].to(device)
        total = total + CARE.get(name, 1.0) * (each * weight).sum() / weight.sum().clamp(min=1)
    values = batch.values.to(device)
    loss = 2 * total / len(reading.logits) + likelihood(reading, values)
    loss = loss + TWINS * difference(reading.mean, values)
    if learns_parts:
        loss = loss + 0.5 * F.cross_entropy(parts.float(), batch.maps.to(device))
    return loss


def care(like: Tensor) -> Tensor:
    """(17,) the weights of CARE for the attributes in READ."""
    return like.new_tensor([CARE.get(name, 1.0) for name in READ])


def likelihood(reading: Reading, values: Tensor) -> Tensor:
    """Gaussian negative log-likelihood. The variances learn from it; the means learn from the
    squared error alone, so that what is still uncertain keeps its gradient (Seitzer et al. 2022,
    eq. 8 with beta = 1)."""
    each = 0.5 * (reading.log_var + (reading.mean - values) ** 2 * (-reading.log_var).exp())
    return (each * reading.log_var.exp().detach() * care(values)).mean()


def difference(mean: Tensor, values: Tensor) -> Tensor:
    """Half the squared error of second twin less first, for what differs between them; the rest of
    the picture, and what is wrong about both, drops out."""
    said, true = mean[1::2] - mean[::2], values[1::2] - values[::2]
    return 0.5 * ((said - true) ** 2 * (true != 0) * care(values)).mean()


# ---- what is written ------------------------------------------------------------------------


def save(file: Path, net: nn.Module, optimiser: torch.optim.Optimizer | Muon, done: dict) -> None:
    with images.whole(file) as part:
        torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), **done}, part)


def restore(file: Path, net: nn.Module, optimiser: torch.optim.Optimizer | Muon) -> dict:
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        return {k: saved[k] for k in ("step", "seconds")}
    except (KeyError, RuntimeError, ValueError) as problem:
        raise ValueError(f"checkpoint '{file}' is damaged or of another network "
                         f"({str(problem).splitlines()[0][:120]}): delete it") from problem


def log(out: Path, p: Progress) -> None:
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%H:%M:%S')}  step {p.step}  images {p.images}  loss "
                   f"{p.loss:.4f}  {p.images_per_second:.0f} images/s  {p.seconds / 60:.1f} min\n")


def export(out: Path, net: Judge, done: dict, renders: Renders, device: str, ranks: int) -> None:
    """The model and its card, which says how it was made."""
    pretrained.save(out, net, net.config)
    facts = {"Data": f"{len(renders.records)} renders (three fifths of the full world, two fifths "
                     f"of the training distribution), seed {renders.seed}",
             "Updates": f"{done['step']} of {ranks * renders.batch} pictures, seed {renders.seed}",
             "Training time": f"{done['seconds']:.0f} s, {device}, {ranks} x "
                              f"{torch.get_num_threads()} threads",
             "Parameters": sum(p.numel() for p in net.parameters()),
             "Net": json.dumps(net.config)}
    lines = [CARD, *(f"| {k} | {v} |" for k, v in facts.items()), ""]
    with images.whole(out / "card.md") as part:
        part.write_text("\n".join(lines), encoding="utf-8")


CARD = """# judge

Reads attributes, identity and parts off portraits of the course's own world, 64x64. Muon, one
cycle of the learning rate, twins, mirrored copies, weak noise and blur. Made by `coursekit train
judge`; `coursekit bench judge` prints its gates.

| | |
|---|---|"""
