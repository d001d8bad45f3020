"""A CLIP of the Portraits world: open_clip's own classes and loss, 64x64 pixels, captions.

The set is squares of four renders, drawn once into the cache folder: a portrait, the same with one
attribute changed, with another, and with both. Their captions follow one plan and differ in exactly
the words of what was changed, so that every picture meets its hardest wrong captions in its own
batch. A change that shows in few pixels makes no square. Each square has four plans, which name
0 to 3 things besides; mirrored copies say the same, as no caption speaks of left and right; weak
noise and blur keep the network from leaning on film grain. Batch k depends on the seed and k alone.

A square tells of two attributes. So that a picture tells of all, each batch also puts questions to
its pictures: which of a few short captions, one a value of an attribute, is theirs? All pictures
for which a caption is true are its own (after Yang et al. 2022, "Unified contrastive learning in
image-text-label space").

A thing of a few pixels meets a deadlock: as long as embeddings do not show it, its captions come to
lie on one spot, as nothing keeps them apart, and then no picture is asked to show it. So pictures
also answer alone what is in HARD, by a linear layer that is thrown away (as in Lee et al. 2015,
"Deeply-supervised nets"), and some squares of each batch, in the first batches all, differ in it.
Squares that differ in a bob and a fringe alone are rare, so two more shards have no others.

Several processes share the work under `torchrun`, each with negatives of its own.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from coursekit import images, portraits, pretrained
from coursekit.nets.clip import CONFIG, Clip
from coursekit.portraits import CATEGORICAL, Portraits, captions, truth
from coursekit.recipes import _words, cache_folder, fresh, judge, write_array, write_pictures
from coursekit.recipes._changes import fitting, moved
from coursekit.recipes._questions import Questions, answers
from coursekit.recipes.judge import Progress

NAME = "portraits-clip"
SQUARES, SHARDS, DATA_SEED = 2048, 16, 3
PLANS = (0, 1, 2, 3)  # things a caption names besides what was changed
SHOWN, THRESHOLD = 12, 0.08  # pixels that a change must move by more than this in a channel
BATCH, STEPS, LR = 64, 12_000, 1e-3
VISION = {"image_size": 64, "layers": [1, 2, 2, 1], "width": 24, "head_width": 64}
TEXT = {"width": 128, "heads": 4, "layers": 3}
TINY = {"vision": VISION | {"layers": [1, 1, 1, 1], "width": 4, "head_width": 32}, "squares": 6,
        "text": {"width": 16, "heads": 2, "layers": 1}, "shards": 2, "alike_shards": 1, "batch": 8,
        "steps": 20}
SIZES = [len(captions.phrases(name)) for name in captions.NAMED]  # answers of each question
HARD = {"mouth": (1 / 8, 1.0), "smile": (1 / 8, 5.0), "hair_style": (1 / 4, 5.0)}
"""What needs help: its share of a batch's squares, the weight of the pictures' own answers."""
KICK = 800
KICKED = {"mouth": (1 / 4, 10.0), "smile": (1 / 2, 10.0), "hair_style": (1 / 4, 10.0)}
"""The same in the first KICK batches."""
ALIKE, ALIKE_VALUES, ALIKE_SHARDS = "hair_style", ("bob", "bangs"), 2
"""Values that a fringe alone tells apart, and how many shards more have them for a change."""
TOP_SCALE = math.log(100)  # of the logits, as in Radford et al. 2021
WEIGHTS = "open_clip_model.safetensors"


def run(out: Path, *, data: Path | None = None, steps: int | None = None,
        minutes: float | None = None, start: str | None = None, resume: bool = True,
        device: str = "cpu", seed: int = 0, tiny: bool = False) -> Iterator[Progress]:
    """Trains it in `out`; arguments as in `coursekit.recipes`. data is refused: it is rendered."""
    if data is not None:
        raise ValueError(f"data='{data}': {NAME} renders its own pictures; leave it out")
    squares, shards, alike, batch = (
        [TINY[k] for k in ("squares", "shards", "alike_shards", "batch")] if tiny else
        [SQUARES, SHARDS, ALIKE_SHARDS, BATCH])
    net = begin(start, config(tiny), seed)
    folder = cache_folder() / f"clip-{squares}x{shards}+{alike}-{stamp()}"
    ranks, rank = judge.gather(device)
    if rank == 0:
        yield from draw(folder, squares, shards, alike, device)
    if ranks > 1:
        torch.distributed.barrier()
    out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        describe(out, config(tiny))
    steps = steps or (10**9 if minutes else TINY["steps"] if tiny else STEPS)
    learner = fresh(Learner, {"clip": net}, seed)
    yield from judge.fit(out, learner.to(device, memory_format=torch.channels_last),
                         Squares(folder, shards + alike, batch // ranks, seed), steps=steps,
                         resume=resume, device=device, lr=LR,
                         seconds=60 * minutes if minutes else None, loss_of=objective,
                         leave=export, muon=True)


def config(tiny: bool = False) -> dict[str, Any]:
    """What open_clip builds the network from: `model_cfg` of open_clip_config.json."""
    text = TINY["text"] if tiny else TEXT
    return {"embed_dim": 16 if tiny else 128, "vision_cfg": TINY["vision"] if tiny else VISION,
            "text_cfg": {"context_length": _words.CONTEXT, "vocab_size": _words.SIZE,
                         "hf_tokenizer_name": NAME, **text}}


def begin(start: str | None, wanted: dict[str, Any], seed: int) -> nn.Module:
    """A fresh network, or the weights that `start` names if they are of the same shape."""
    import open_clip  # a machine without it can still list the recipes

    net = fresh(open_clip.CLIP, wanted, seed)
    if start is not None:
        old = pretrained.load(start).net
        state = old.model.state_dict() if isinstance(old, Clip) else {}
        if {k: v.shape for k, v in state.items()} != {
                k: v.shape for k, v in net.state_dict().items()}:
            raise ValueError(f"start='{start}' is a {type(old).__name__} of another shape: "
                             f"accepted is a model of the recipe {NAME}")
        net.load_state_dict(state)
    return net


# ---- the set --------------------------------------------------------------------------------


def stamp() -> str:
    """Eight letters that change with the world, its captions and its words."""
    sources = (captions.__file__, _words.__file__)
    content = b"".join(Path(file).read_bytes() for file in sources)
    return hashlib.sha256(judge.world().encode() + content).hexdigest()[:8]


def draw(folder: Path, squares: int, shards: int, alike: int, device: str) -> Iterator[Progress]:
    """Draws what is missing of the set: NNN.npy with pictures, their captions and answers beside.

    NNN.tokens.npy is (squares, plans, 4, context), NNN.answers.npy (squares, 4, attributes).
    After the shards come `alike` more, in whose squares one change is between the values of ALIKE.
    """
    begun, drawn = time.perf_counter(), 0
    words = _words.tokenizer()
    for k in range(shards + alike):
        tokens, labels = (folder / f"{k:03d}.{kind}.npy" for kind in ("tokens", "answers"))
        if labels.exists():  # written last
            continue
        told: list[Tensor] = []
        asked: list[Tensor] = []
        chunks = shard(k, squares, words, device, told, asked, alike=k >= shards)
        for _ in write_pictures(folder / f"{k:03d}.npy", 64, chunks, least=4 * squares):
            drawn += 4 * len(told[-1])
            seconds = time.perf_counter() - begun
            yield Progress(0, 1, drawn, math.nan, seconds, drawn / seconds)
        for file, found in ((tokens, torch.cat(told).short()), (labels, torch.cat(asked).char())):
            write_array(file, found.numpy())


def shard(k: int, squares: int, words: Any, device: str, told: list[Tensor],
          asked: list[Tensor], *, alike: bool) -> Iterator[Tensor]:
    """Pictures (4 m, 3, 64, 64) until there are enough; told grows by their tokens, asked by their
    answers."""
    generator = torch.Generator().manual_seed(DATA_SEED * 1_000_003 + k)
    done = 0
    while done < squares:
        people, changed = propose(min(128, squares), generator, alike=alike)
        plain = tell(people, changed, PLANS[0], generator)
        keep = [i for i, four in enumerate(plain) if len(set(four)) == 4]
        if not keep:
            continue
        people, changed = people[corners(keep)], [changed[i] for i in keep]
        x = portraits.render(people.to(device)).cpu()
        keep = visible(x).nonzero()[:, 0].tolist()[: squares - done]
        if not keep:
            continue
        people, changed = people[corners(keep)], [changed[i] for i in keep]
        plans = [tell(people, changed, details, generator) for details in PLANS]
        texts = [text for square in zip(*plans, strict=True) for four in square for text in four]
        tokens = words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        told.append(tokens.view(len(keep), len(PLANS), 4, -1))
        found = torch.stack([answers(people, name) for name in captions.NAMED], 1)
        asked.append(found.view(len(keep), 4, -1))
        done += len(keep)
        yield x[corners(keep)]


def corners(squares: list[int]) -> Tensor:
    """The rows of some squares' pictures."""
    return (4 * torch.tensor(squares)[:, None] + torch.arange(4)).flatten()


def propose(n: int, generator: torch.Generator, *,
            alike: bool = False) -> tuple[Portraits, list[tuple[str, str]]]:
    """n squares (4 n records: plain, first, second, both) and the two attributes of each.

    alike: the first change is between the values of ALIKE.
    """
    chances = torch.ones(n, len(captions.NAMED))
    if alike:
        chances[:, captions.NAMED.index(ALIKE)] = 1e9  # comes first
    picks = torch.multinomial(chances, 2, generator=generator)  # n 2
    p = suited(portraits.sample(n, generator), picks, generator)
    columns = {}
    for k, name in enumerate(captions.NAMED):
        old, new = getattr(p, name), moved(p, name, generator)
        if alike and name == ALIKE:
            codes, first_ = alike_codes(), torch.randint(2, (n,), generator=generator)
            old, new = codes[first_], codes[1 - first_]
        first, second = (picks == k).unbind(1)
        changes = torch.stack([torch.zeros_like(first), first, second, first | second], 1)
        columns[name] = torch.where(changes, new[:, None], old[:, None]).flatten()  # 4 n
    people = p[torch.arange(n).repeat_interleave(4)].replace(**columns)
    names = [captions.NAMED[k] for k in picks.flatten().tolist()]
    return fitting(people), list(zip(names[::2], names[1::2], strict=True))


def alike_codes() -> Tensor:
    """(2,) the values of ALIKE."""
    return torch.tensor([CATEGORICAL[ALIKE].index(value) for value in ALIKE_VALUES])


def suited(p: Portraits, picks: Tensor, generator: torch.Generator) -> Portraits:
    """Someone with hair where hair is to change, a grown man where a beard is."""
    def picked(name: str) -> Tensor:
        return (picks == captions.NAMED.index(name)).any(1)

    hair, beard = picked("hair_style") | picked("hair_colour"), picked("beard")
    bare = hair & (p.hair_style == 0)
    style = torch.randint(1, len(CATEGORICAL["hair_style"]), (len(p),), generator=generator)
    subject = torch.where(hair & ~p.where("subject", "woman", "man"), p.seed % 2, p.subject)
    return p.replace(hair_style=torch.where(bare, style, p.hair_style),
                     subject=torch.where(beard, 1, subject),
                     age=torch.where(beard, 0.3 + 0.7 * p.age, p.age).clamp(max=1))


def tell(people: Portraits, changed: list[tuple[str, str]], details: int,
         generator: torch.Generator) -> list[list[str]]:
    """Four captions a square, which name what changes in it and so many things besides."""
    plans = portraits.caption(people[::4], generator, details)
    return [[c.text for c in portraits.recaption([plan] * 4, people[4 * i : 4 * i + 4], *names)]
            for i, (plan, names) in enumerate(zip(plans, changed, strict=True))]


def visible(x: Tensor) -> Tensor:
    """(n,) bool for pictures (4 n, ...): each side of the square moves at least SHOWN pixels."""
    plain, first, second, both = x.unflatten(0, (-1, 4)).unbind(1)
    sides = ((plain, first), (plain, second), (first, both), (second, both))
    moved_ = [truth.difference(a, b, THRESHOLD).sum((1, 2)) for a, b in sides]
    return torch.stack(moved_).amin(0) >= SHOWN


class Squares:
    """The set as batches: squares(k) -> pictures (b, 3, 64, 64) and tokens (b, context), then the
    short captions of all questions (n, context), the pictures' answers (b, attributes) and how much
    each attribute's own answers count (attributes,)."""

    def __init__(self, folder: Path, shards: int, batch: int, seed: int) -> None:
        if batch % 4:
            raise ValueError(f"batch={batch}: accepted is a multiple of 4, whole squares")
        files = [folder / f"{k:03d}" for k in range(shards)]
        self.pixels = [numpy.load(f"{f}.npy", mmap_mode="r") for f in files]
        self.tokens = [numpy.load(f"{f}.tokens.npy") for f in files]
        self.answers = [numpy.load(f"{f}.answers.npy") for f in files]
        self.questions = Questions(_words.tokenizer())
        self.batch, self.seed, self.size = batch, seed, len(self.tokens[0])
        self.hard = {name: differing(numpy.concatenate(self.answers), name) for name in HARD}
        self._epoch, self._order = -1, numpy.empty(0)

    def __len__(self) -> int:
        return self.size * len(self.tokens)

    def __call__(self, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        hard = KICKED if k < KICK else HARD
        chosen = self.choose(k, {name: share for name, (share, _) in hard.items()})
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + k)
        plan = torch.randint(len(PLANS), (len(chosen),), generator=generator).tolist()
        where = [divmod(int(i), self.size) for i in chosen]
        x = numpy.concatenate([self.pixels[s][4 * i : 4 * i + 4] for s, i in where])
        x = images.from_uint8(torch.from_numpy(x))
        flip = torch.rand(len(x), generator=generator) < 0.5
        x[flip] = x[flip].flip(-1)
        tokens = numpy.concatenate([self.tokens[s][i, j]
                                    for (s, i), j in zip(where, plan, strict=True)])
        found = numpy.concatenate([self.answers[s][i] for s, i in where])
        weights = torch.tensor([hard.get(name, (0, 0.0))[1] for name in captions.NAMED])
        return (judge.worn(x, generator), torch.from_numpy(tokens).long(),
                self.questions(generator), torch.from_numpy(found).long(), weights)

    def choose(self, k: int, shares: dict[str, float]) -> numpy.ndarray:
        """The squares of batch k: of those that differ in a hard thing its share, and of all in
        their turn."""
        per_batch, rng = self.batch // 4, numpy.random.default_rng((self.seed, 1, k))
        picked = [rng.choice(self.hard[name], int(per_batch * share))
                  for name, share in shares.items() if len(self.hard[name])]
        epoch, place = divmod(k, len(self) // per_batch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = numpy.random.default_rng((self.seed, epoch)).permutation(len(self))
        turn = self._order[place * per_batch : (place + 1) * per_batch]
        return numpy.concatenate([*picked, turn[sum(map(len, picked)) :]])


def differing(answers_: numpy.ndarray, name: str) -> numpy.ndarray:
    """The squares, of answers (squares, 4, attributes), whose pictures all have an answer to one
    question and not the same; of the question ALIKE, none but its values."""
    column = answers_[:, :, captions.NAMED.index(name)]
    known = numpy.isin(column, alike_codes()) if name == ALIKE else column >= 0
    return (known.all(1) & (column.min(1) != column.max(1))).nonzero()[0]


# ---- the fit --------------------------------------------------------------------------------


class Learner(nn.Module):
    """A CLIP, and the linear layer by which its pictures alone answer the questions."""

    GAIN = 8.0  # embeddings have length 1: logits of some size without large weights

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self.head = nn.Linear(clip.text_projection.shape[1], sum(SIZES))

    def own(self, pictures: Tensor) -> Tensor:
        """(b, n) logits of the answers for unit embeddings (b, d)."""
        return self.head(self.GAIN * pictures)


def objective(net: Learner, batch: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], device: str,
              dtype: torch.dtype | None = None) -> Tensor:
    """open_clip's contrastive loss over the batch, and the cross-entropies of its questions: by the
    short captions, and by the pictures' own answers, weighed.

    dtype: of the arithmetic, None float32.
    """
    from open_clip import ClipLoss

    x, tokens, short, true, weights = (part.to(device) for part in batch)
    clip = net.clip
    with torch.no_grad():
        clip.logit_scale.clamp_(0, TOP_SCALE)
    with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
        x = x.contiguous(memory_format=torch.channels_last)
        pictures = nn.functional.normalize(clip.encode_image(x), dim=-1)
        texts = nn.functional.normalize(short_text(clip, torch.cat([tokens, short])), dim=-1)
    pictures, texts, scale = pictures.float(), texts.float(), clip.logit_scale.exp()
    loss = ClipLoss()(pictures, texts[: len(x)], scale)
    loss = loss + asked(scale * pictures @ texts[len(x) :].T, true).sum()
    return loss + (weights * asked(net.own(pictures), true)).sum()


def asked(logits: Tensor, true: Tensor) -> Tensor:
    """(q,) cross-entropies of the questions, 0 where none has an answer.

    logits (b, n), question by question; true (b, q), -1 where there is none.
    """
    terms = []
    for column, some in zip(true.unbind(1), logits.split(SIZES, 1), strict=True):
        known = column >= 0
        terms.append(nn.functional.cross_entropy(some[known], column[known]) if known.any()
                     else some.sum() * 0)
    return torch.stack(terms)


def short_text(net: nn.Module, tokens: Tensor) -> Tensor:
    """`net.encode_text`, without the work on padding that no text of the batch reaches.

    The mask is causal: what follows the end of a text cannot reach it.
    """
    ends = tokens.argmax(1)
    n = int(ends.max()) + 1
    x = net.token_embedding(tokens[:, :n]) + net.positional_embedding[:n]
    x = net.ln_final(net.transformer(x, attn_mask=net.attn_mask[:n, :n]))
    return x[torch.arange(len(x), device=x.device), ends] @ net.text_projection


# ---- what is written ------------------------------------------------------------------------


def describe(out: Path, model: dict[str, Any]) -> None:
    """open_clip_config.json and the tokenizer: what open_clip builds the network from."""
    half = [0.5, 0.5, 0.5]  # so that pictures in [-1, 1] are what the network sees
    page = {"model_cfg": model, "preprocess_cfg": {"mean": half, "std": half}}
    with images.whole(out / CONFIG) as part:
        part.write_text(json.dumps(page, indent=2) + "\n", encoding="utf-8")
    _words.tokenizer().save_pretrained(out)


def export(out: Path, net: Learner, done: dict, squares: Squares, device: str,
           ranks: int) -> None:
    """The weights in fp16 and the card, which says how they were made."""
    import safetensors.torch

    with images.whole(out / WEIGHTS) as part:
        part.write_bytes(safetensors.torch.save(pretrained.halved(net.clip)))
    facts = {"Data": f"{len(squares)} squares of 4 renders of the full world, seed {DATA_SEED}",
             "Updates": f"{done['step']} of {ranks * squares.batch} pictures, seed {squares.seed}",
             "Images seen": done["step"] * ranks * squares.batch,
             "Training time": f"{done['seconds']:.0f} s, {device}, {ranks} x "
                              f"{torch.get_num_threads()} threads",
             "Parameters": sum(p.numel() for p in net.clip.parameters()),
             "Temperature": f"1 / {float(net.clip.logit_scale.detach().exp()):.1f}"}
    lines = [CARD, *(f"| {k} | {v} |" for k, v in facts.items()), ""]
    with images.whole(out / "card.md") as part:
        part.write_text("\n".join(lines), encoding="utf-8")


CARD = """# portraits-clip

Pictures of the course's own world, 64x64, and captions in one space; an open_clip model that loads
as `open_clip.create_model("local-dir:FOLDER")`. The contrastive loss, and questions by short
captions that name one thing. Muon and AdamW, one cycle of the learning rate, mirrored copies, weak
noise and blur. Made by `coursekit train portraits-clip`; `coursekit bench clip` prints its gates.

| | |
|---|---|"""
