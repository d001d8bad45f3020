"""The gates of portraits-clip on renders it has never seen: zero-shot, directions, retrieval.

Full world, film grain on. Zero-shot: the class of a value is the mean of the embeddings of its
prompts, one a style, a subject that can have it, and a synonym; the row names the classes and shows
a prompt. A value that captions never name (no hat) is prompted by silence. A portrait counts where
any other value would change at least 12 pixels, as for the judge, and where the world has the
attribute: hair on people, beards on grown men, colours on all but bronzes. Directions: pairs that
differ in one attribute, dI between the pictures and dT between their captions, which differ in
exactly its words.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from coursekit import portraits, pretrained
from coursekit.bench import Row
from coursekit.bench.judge import seen
from coursekit.nets.clip import Clip, direction
from coursekit.portraits import CATEGORICAL, Portraits
from coursekit.portraits.captions import NAMED
from coursekit.recipes import portraits_clip
from coursekit.recipes._questions import answers, prompts

MODEL = "portraits-clip"
N, SQUARES, SETS, SET = 1000, 500, 10, 100
HELD_OUT = 3 * 10**9  # seeds from here on are none of the training set's
DETAILS = 2  # things that the captions of a pair name besides what changes
BATCH = 128


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Zero-shot accuracy by attribute, cos(dI, dT) beside its chance level, retrieval."""
    clip = pretrained.load(MODEL, device).net
    yield from gates(clip, seed, device)


@torch.no_grad()
def gates(clip: Clip, seed: int, device: str, n: int = N, squares: int = SQUARES,
          sets: int = SETS) -> Iterator[Row]:
    """The rows for any CLIP; n portraits, so many squares, so many sets of 100."""
    generator = torch.Generator().manual_seed(HELD_OUT + seed)
    p = portraits.sample(n, generator, device=device)
    pictures = embedded(clip, p)
    for name in NAMED:
        yield from zero_shot(clip, p, pictures, name)
    yield from directions(clip, generator, device, squares)
    yield from retrieval(clip, generator, device, sets)


def embedded(clip: Clip, p: Portraits) -> Tensor:
    """(n, d) embeddings of the renders."""
    parts = [p[i : i + BATCH] for i in range(0, len(p), BATCH)]
    return torch.cat([clip.images(portraits.render(part)) for part in parts])


# ---- zero-shot ------------------------------------------------------------------------------


def zero_shot(clip: Clip, p: Portraits, pictures: Tensor, name: str) -> Iterator[Row]:
    """Accuracy of one attribute; age and smile, which only their ends have words for, barless."""
    classes = prompts(name)
    centres = torch.stack([F.normalize(clip.texts(texts).mean(0), dim=0)
                           for texts in classes.values()])
    true = answers(p, name)
    counts = true >= 0
    if name in CATEGORICAL:
        rows_ = counts.nonzero()[:, 0]
        counts[rows_] = seen(p[rows_], name)
    said = (pictures @ centres.T).argmax(1)
    n = int(counts.sum())
    if n:
        example = list(classes.values())[-1][0]
        label = f"zero-shot {name} ({', '.join(classes)}), e.g. '{example}'; peer: bar"
        bar = 0.95 if name in CATEGORICAL else None
        right = (said == true)[counts].float().mean().item()
        yield Row(label if bar else label.removesuffix("; peer: bar"), right, bar, "", "higher", n)


# ---- directions -----------------------------------------------------------------------------


def directions(clip: Clip, generator: torch.Generator, device: str,
               squares: int) -> Iterator[Row]:
    """Mean cos(dI, dT) of pairs: all, by chance (the captions of another pair), by attribute."""
    names, moves, words = [], [], []
    while len(names) < 2 * squares:
        people, changed = portraits_clip.propose(min(BATCH, squares), generator)
        told = portraits_clip.tell(people, changed, DETAILS, generator)
        keep = [i for i, four in enumerate(told) if len(set(four)) == 4]
        people = people[portraits_clip.corners(keep)].to(device)
        x = portraits.render(people)
        shown = portraits_clip.visible(x).tolist()
        at = embedded_pictures(clip, x).unflatten(0, (-1, 4))  # m 4 d
        texts = clip.texts([text for i in keep for text in told[i]]).unflatten(0, (-1, 4))
        for row, i in enumerate(keep):
            for k in (1, 2) if shown[row] else ():
                names.append(changed[i][k - 1])
                moves.append(direction(at[row, 0], at[row, k]))
                words.append(direction(texts[row, 0], texts[row, k]))
    di, dt = torch.stack(moves), torch.stack(words)
    cos = (di * dt).sum(1)
    yield Row("cos(dI, dT) of pairs that differ in one attribute; peer: bar", cos.mean().item(),
              0.5, "", "higher", len(cos))
    other = (di * dt.roll(7, 0)).sum(1)
    yield Row("the same with the captions of another pair: chance", other.mean().item(), None, "",
              "lower", len(cos))
    yield Row("deviation of cos between random directions: 1 / sqrt(d)", di.shape[1] ** -0.5, None,
              "", "lower", len(cos))
    for name in NAMED:
        mine = torch.tensor([n == name for n in names], device=cos.device)
        if mine.any():
            yield Row(f"cos(dI, dT), {name}", cos[mine].mean().item(), None, "", "higher",
                      int(mine.sum()))


def embedded_pictures(clip: Clip, x: Tensor) -> Tensor:
    return torch.cat([clip.images(part) for part in x.split(BATCH)])


# ---- retrieval ------------------------------------------------------------------------------


def retrieval(clip: Clip, generator: torch.Generator, device: str, sets: int) -> Iterator[Row]:
    """R@1 among 100 renders whose captions are all different, mean over sets, both ways."""
    hits = []
    for _ in range(sets):
        p, texts = different(generator)
        scores = embedded(clip, p.to(device)) @ clip.texts(texts).T
        true = torch.arange(SET, device=scores.device)
        hits.append([(scores.argmax(1) == true).float().mean().item(),
                     (scores.argmax(0) == true).float().mean().item()])
    for way, share in zip(("caption of a picture", "picture of a caption"),
                          torch.tensor(hits).mean(0).tolist(), strict=True):
        yield Row(f"R@1 among {SET}: {way}; peer: bar", share, 0.8, "", "higher", SET * sets)


def different(generator: torch.Generator) -> tuple[Portraits, list[str]]:
    """100 portraits of the full world and their captions, no two alike."""
    p = portraits.sample(2 * SET, generator)
    texts = [c.text for c in portraits.caption(p, generator)]
    first = [i for i, text in enumerate(texts) if text not in texts[:i]][:SET]
    return p[torch.tensor(first)], [texts[i] for i in first]
