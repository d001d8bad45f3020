"""Which token of one sentence stands for which of another, for editing by words.

    prompt   a  cat  sits  .                 R[i, j]  the share of source token i's map that
    target   a  tyranno|saurus  sits  .               target token j takes over
                                             own[j]   1 where j has no source: it keeps its own

    swap     word for word: each stands for the one at its place, whatever their tokens
    refine   any two sentences: words in common, in order, stand for each other; others are new

A sentence is cut into words and marks, so that "cat." holds the word cat, and compared without
regard to capitals, as CLIP reads it. After Hertz et al., "Prompt-to-Prompt", ICLR 2023.

Where the official code differs: after a swap by a word with more tokens it counts on along the
target alone, so that each later word takes the map of its neighbour; where a refined sentence is
shorter, its padding takes maps of words. And it aligns tokens, so that two words with a syllable
in common share a map.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coursekit.nets.latent import Latent

PIECE = r"\w(?:\S*\w)?|[^\w\s]+"  # "(a t-shirt)." is ( a t-shirt ).
Sentences = str | Sequence[str]
Pieces = list[tuple[str, list[int]]]


@dataclass(frozen=True, eq=False)
class Match:
    """R (l, l) and own (l,), l the tokens a prompt may have; the new map is M_source R + M own."""

    R: Tensor
    own: Tensor


def swap(sd: Latent, prompt: str, target: str) -> Match:
    """Every map of the prompt goes somewhere: rows of R sum to 1, own is 0.

    The tokens of a word go to those at its place one to one, or in equal shares where their
    numbers differ. ValueError where a word would meet a mark, or one sentence is longer.
    """
    old, new = pieces(sd, prompt), pieces(sd, target)
    if [_is_word(p) for p, _ in old] != [_is_word(p) for p, _ in new]:
        raise ValueError(f"target={target!r:.60} is not prompt={prompt!r:.60} word for word "
                         f"({len(new)} words and marks, {len(old)}): swap accepts such, refine any")
    R = _frame(sd, prompt, target)
    for (_, I), (_, J) in zip(old, new, strict=True):
        if len(I) == len(J):
            R[I, J] = 1
        else:
            R[I[0]:I[-1] + 1, J] = 1 / len(J)
    R[R.sum(1) == 0, -1] = 1  # padding that the prompt has more of
    return Match(R, torch.zeros(len(R), device=R.device))


def refine(sd: Latent, prompt: str, target: str) -> Match:
    """Words in common take the prompt's maps: columns of R hold one 1, or none where own is 1."""
    old, new = pieces(sd, prompt), pieces(sd, target)
    R = _frame(sd, prompt, target)
    for i, j in common([p.lower() for p, _ in old], [p.lower() for p, _ in new]):
        R[old[i][1], new[j][1]] = 1
    return Match(R, 1 - R.sum(0))


def common(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """The longest list of pairs (i, j) with a[i] == b[j] in which both grow.

    Needleman & Wunsch 1970, with 1 for a match and 0 for a gap.
    """
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]  # of a[i:] and b[j:]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            best[i][j] = (best[i + 1][j + 1] + 1 if a[i] == b[j] else
                          max(best[i + 1][j], best[i][j + 1]))
    i = j = 0
    pairs = []
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def pieces(sd: Latent, sentence: str) -> Pieces:
    """Words and marks in order, each with the positions of its tokens; ValueError for too many."""
    found = sd.words(sentence, PIECE)
    if found and found[-1][1][-1] > sd.context - 2:
        raise ValueError(f"prompt={sentence!r:.60} has more tokens, with its start and end, than "
                         f"the {sd.context} that are accepted")
    return found


def tokens(sd: Latent, sentence: str, words: str, name: str) -> list[int]:
    """The positions of a word, or of several in a row, that the sentence has once.

    ValueError names the argument `name` the words came from, if they are absent or there twice.
    """
    found = pieces(sd, sentence)
    at = _where([p for p, _ in found], words, sentence, name)
    return [i for _, I in found[at] for i in I]


def pairs(b: int, prompt: Sentences, target: Sentences) -> list[tuple[str, str]]:
    """Prompt and target, once for all of b pictures or b times."""
    sides = []
    for name, said in (("prompt", prompt), ("target", target)):
        side = [said] if isinstance(said, str) else said
        whole = isinstance(side, Sequence) and all(isinstance(s, str) for s in side)
        if not whole or len(side) not in (1, b):
            shown = repr(said) if whole else type(said).__name__
            raise ValueError(f"{name}={shown:.60}: accepted is a sentence, or one for each of "
                             f"{b} pictures")
        sides.append(list(side))
    n = max(map(len, sides))
    return list(zip(*(side * (n // len(side)) for side in sides), strict=True))


def replaced(prompt: str, old: str, new: str) -> str:
    """The prompt with `new` for the words `old`, which it has once; else ValueError."""
    found = list(re.finditer(PIECE, prompt))
    at = found[_where([m[0] for m in found], old, prompt, "old")]
    return prompt[:at[0].start()] + new + prompt[at[-1].end():]


def _where(found: list[str], words: str, sentence: str, name: str) -> slice:
    asked = [p.lower() for p in re.findall(PIECE, words)]
    n, said = len(asked), [p.lower() for p in found]
    at = [i for i in range(len(said) - n + 1) if n and said[i:i + n] == asked]
    if len(at) != 1:
        raise ValueError(f"{name}: {words!r} is {len(at)} times in {sentence!r:.60}: accepted is "
                         "a word, or some in a row, that it has once")
    return slice(at[0], at[0] + n)


def _frame(sd: Latent, prompt: str, target: str) -> Tensor:
    """R (l, l) of what is no word: start to start, end to end, and padding to padding after it."""
    R = torch.zeros(sd.context, sd.context, device=sd.device)
    R[0, 0] = 1
    i, j = (len(sd.tokenizer(s)["input_ids"]) - 1 for s in (prompt, target))
    n = sd.context - max(i, j)
    R[range(i, i + n), range(j, j + n)] = 1
    return R


def _is_word(piece: str) -> bool:
    return bool(re.match(r"\w", piece))
