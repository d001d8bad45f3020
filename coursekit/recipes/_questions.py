"""Short captions that name one thing: the classes of zero-shot, and what a CLIP is asked.

A question is an attribute that captions name; its answers are its values, each said in one short
caption of a style, a subject and the value. A value that captions never name (no hat) is said by
silence. Of a picture a question has an answer where the world has the attribute and it can be
seen: hair on people, if no hat hides it, beards on grown men, eyes without sunglasses, colours on
all but bronzes; age and smile at their ends alone, as only these have words.
"""

import math
from typing import Any

import torch
from torch import Tensor

from coursekit.portraits import CATEGORICAL, Portraits
from coursekit.portraits.captions import NAMED, phrases

ENDS = {"age": {"young": (0.2, 0.35), "old": (0.75, math.inf)},
        "smile": {"happy": (0.4, math.inf), "sad": (-math.inf, -0.4)}}
"""The values that captions call so, from and below."""
COMMON = 5040  # a multiple of every number of synonyms


def prompts(name: str) -> dict[str, list[str]]:
    """{value: prompts}: every style and subject that can have it, every synonym of the value."""
    return {value: [(before + words + after).strip() for before, after in frames(name)
                    for words in said or ("",)] for value, said in phrases(name).items()}


def frames(name: str) -> list[tuple[str, str]]:
    """What may stand before and after the words for a value of an attribute."""
    styles = [texts[0] for texts in phrases("style").values()]
    subjects = {k: texts[0] for k, texts in phrases("subject").items()}
    if name in ("hair_style", "hair_colour", "beard"):
        subjects = {k: subjects[k] for k in (("man",) if name == "beard" else ("woman", "man"))}
    if name == "style":
        return [("", f" a {k}") for k in subjects.values()]
    if name == "subject":
        return [(f"{s} a ", "") for s in styles]
    if name in ("age", "smile"):
        return [(f"{s} a ", f" {k}") for s in styles for k in subjects.values()]
    return [(f"{s} a {k} ", "") for s in styles for k in subjects.values()]


def answers(p: Portraits, name: str) -> Tensor:
    """(b,) which of the values in prompts(name) is true of each portrait; -1 where none is said."""
    if name in CATEGORICAL:
        return torch.where(possible(p, name), getattr(p, name), -1)
    column = getattr(p, name)
    found = torch.full_like(column, -1, dtype=torch.long)
    for k, (low, high) in enumerate(ENDS[name].values()):
        found[(column >= low) & (column < high)] = k
    return found


def possible(p: Portraits, name: str) -> Tensor:
    """(b,) bool: portraits on which the world has the attribute, and captions name it."""
    found = torch.ones_like(p.age, dtype=torch.bool)
    if name in ("hair_style", "hair_colour"):
        covered = p.where("hair_style", "mohawk") & ~p.where("hat", "none")
        found = p.where("subject", "woman", "man") & ~covered
    if name == "hair_colour":
        found = found & ~p.where("hair_style", "bald")
    if name in ("hair_colour", "clothes"):
        found = found & ~p.where("style", "bronze")
    if name == "beard":
        found = found & p.where("subject", "man") & (p.age > 0.3)
    if name == "eyes":
        found = found & ~p.where("glasses", "sunglasses")
    return found


class Questions:
    """All questions, as tokens: questions(generator) -> a caption for each value of each.

    The captions of one question differ in the value's words alone: they have their frame in common,
    and the colour or the cut that the words of a hair style or colour name besides.
    Tokens are (n, context), question by question in the order of NAMED.
    """

    def __init__(self, words: Any) -> None:
        self._tables = []  # for each question one a value: frames synonyms context
        for name in NAMED:
            texts = prompts(name).values()
            ids = [words(said, padding="max_length", return_tensors="pt").input_ids
                   for said in texts]
            self._tables.append([found.view(len(frames(name)), -1, found.shape[1])
                                 for found in ids])

    def __call__(self, generator: torch.Generator) -> Tensor:
        drawn = []
        for question in self._tables:
            frame = torch.randint(len(question[0]), (), generator=generator)
            synonym = torch.randint(COMMON, (), generator=generator)
            drawn += [table[frame, synonym % table.shape[1]] for table in question]
        return torch.stack(drawn)
