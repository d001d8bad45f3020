"""Captions: one short sentence that names only what can be seen, and which word names what.

A caption is made from a *plan*, the list of things it mentions and its choice of synonyms. The same
plan on an edited record gives the aligned caption: it differs by exactly the edited words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .attributes import CATEGORICAL, HUMANS, Portraits

# Each phrase carries its own connecting words, so that naming one thing never changes how
# another is named; all nouns and adjectives begin with a consonant, so that "a" always fits.
_SYNONYMS: dict[str, dict[str, tuple[str, ...]]] = {
    "style": {
        "photo": ("a photo of", "a portrait of"),
        "sketch": ("a pencil sketch of", "a sketch of"),
        "watercolour": ("a watercolour of", "a watercolour painting of"),
        "pixel-art": ("a pixel-art picture of", "pixel-art of"),
        "bronze": ("a bronze statue of", "a bronze bust of"),
    },
    "subject": {
        "woman": ("woman", "lady"), "man": ("man", "gentleman"),
        "girl": ("girl", "little girl"), "boy": ("boy", "little boy"),
        "cat": ("cat", "kitty"), "dog": ("dog", "hound"), "bear": ("bear", "teddy bear"),
        "fox": ("fox", "red fox"), "rabbit": ("rabbit", "bunny"),
    },
    "age": {"young": ("young", "youthful"), "old": ("senior", "grizzled")},
    "smile": {"happy": ("smiling", "happy"), "sad": ("sad", "frowning")},
    "eyes": {"closed": ("with closed eyes", "with eyes shut")},
    "mouth": {"open": ("with mouth wide open", "with parted lips")},
    "beard": {
        "moustache": ("with a moustache", "with a thick moustache"),
        "full": ("with a beard", "with a full beard"),
    },
    "glasses": {
        "round": ("with round glasses", "with round spectacles"),
        "sunglasses": ("with sunglasses", "with dark shades"),
    },
    "earrings": {"gold": ("with gold earrings", "with golden earrings")},
    "hat": {
        "beanie": ("in a beanie", "in a woolly hat"),
        "cap": ("in a cap", "in a baseball cap"),
        "party": ("in a party hat", "in a striped party hat"),
    },
    "background": {
        "plain": ("on a plain {} background", "before a plain {} wall"),
        "gradient": ("on a two-tone background", "on a blended background"),
        "beach": ("on a beach", "by the sea"),
        "mountains": ("in the mountains", "before snowy peaks"),
        "forest": ("in a forest", "among trees"),
        "city": ("in a city at night", "before a night skyline"),
        "snow": ("in the snow", "in a snowy field"),
    },
}  # fmt: skip
_HAIR = {"short": "short", "bob": "bobbed", "long": "long", "bangs": "fringed", "curly": "curly"}
_HUES = {"red": 0.04, "orange": 0.12, "yellow": 0.20, "green": 0.44, "teal": 0.53, "blue": 0.70,
         "purple": 0.83, "pink": 0.95}
"""Where each name ends on the wheel of hues, which the eye does not divide evenly; then red again."""
_ORDER = ("style", "age", "smile", "subject", "hair", "beard", "eyes", "mouth", "glasses",
          "earrings", "hat", "clothes", "background")  # fmt: skip
_NAMES = {"hair": ("hair_style", "hair_colour")}
_GARMENTS = ("shirt", "sweater")
_ADULT = {"girl": "woman", "boy": "man"}
NAMED = tuple(name for topic in _ORDER for name in _NAMES.get(topic, (topic,)))
"""The attributes that captions name, in the order in which they do."""


@dataclass(frozen=True)
class Caption:
    """text; words with the attribute each one names (None: none); and the plan behind it."""

    text: str
    words: tuple[tuple[str, str | None], ...]
    mentions: frozenset[str]
    choice: tuple[int, ...]

    def naming(self, attribute: str) -> list[int]:
        """Positions of the words that name `attribute`."""
        return [i for i, (_, named) in enumerate(self.words) if named == attribute]


def caption(
    p: Portraits, generator: torch.Generator | None = None, details: int = 4
) -> list[Caption]:
    """A caption for each portrait.

    Args:
        p: b records.
        generator: CPU generator for what is mentioned and for synonyms.
        details: how many things to name besides style and subject, at least 0 (fewer if fewer
            can be seen).
    """
    if details < 0:
        raise ValueError(f"details must be at least 0, got {details}")
    captions = []
    for i in range(len(p)):
        row = p.describe(i)
        seen = [k for k in _ORDER if k not in ("style", "subject") and _phrase(k, row, 0)]
        keep = torch.randperm(len(seen), generator=generator)[:details].tolist()
        choice = torch.randint(2, (len(_ORDER),), generator=generator).tolist()
        mentions = frozenset({"style", "subject", *(seen[j] for j in keep)})
        captions.append(_compose(row, mentions, tuple(choice)))
    return captions


def recaption(captions: Sequence[Caption], edited: Portraits, *changed: str) -> list[Caption]:
    """The aligned captions of edited records: same plan, plus a mention of what has `changed`.

    Args:
        captions: the captions before the edit, one a record.
        edited: the records after it.
        changed: names of the attributes that the edit touches, e.g. "hat".
    """
    if len(captions) != len(edited):
        raise ValueError(f"captions has {len(captions)} entries for {len(edited)} portraits")
    topics = {"hair" if k in _NAMES["hair"] else k for k in changed}
    unknown = sorted(topics - set(_ORDER))
    if unknown:
        raise ValueError(f"changed: no caption names {unknown[0]!r}; captions name "
                         f"{', '.join(_ORDER)}")  # fmt: skip
    return [
        _compose(edited.describe(i), c.mentions | topics, c.choice) for i, c in enumerate(captions)
    ]


def phrases(attribute: str) -> dict[str, tuple[str, ...]]:
    """How captions name each value of an attribute in NAMED: {value: phrases}.

    A value that is never named, e.g. glasses "none", has no phrases. The values of "age" are
    "young" and "old", those of "smile" are "happy" and "sad"; a girl is a woman here and a boy a
    man. The captions of a bronze leave out the colour of its hair.
    """
    if attribute in _NAMES["hair"]:
        rows = [{"subject": "woman", "style": "photo", "hat": "none", "hair_style": style,
                 "hair_colour": colour} for style in CATEGORICAL["hair_style"]
                for colour in CATEGORICAL["hair_colour"]]
        named = [(row[attribute], " ".join(w for w, _ in _hair(row))) for row in rows]
    elif attribute == "clothes":
        named = [(colour, f"in a {colour} {noun}") for colour in CATEGORICAL["clothes"]
                 for noun in _GARMENTS]
    elif attribute in NAMED:
        named = [(_ADULT.get(kind, kind), text.format(hue))
                 for kind, texts in _SYNONYMS[attribute].items() for text in texts
                 for hue in (_HUES if "{}" in text else ("",))]
    else:
        raise ValueError(f"no caption names {attribute!r}; captions name {', '.join(NAMED)}")
    values = CATEGORICAL.get(attribute) or tuple(_SYNONYMS[attribute])
    return {v: tuple(text for kind, text in named if kind == v and text) for v in values}


def _compose(row: dict, mentions: frozenset[str], choice: tuple[int, ...]) -> Caption:
    words: list[tuple[str, str | None]] = []
    for topic, pick in zip(_ORDER, choice, strict=True):
        if topic not in mentions:
            continue
        phrase = _phrase(topic, row, pick)
        if topic == "subject" and not any(k in mentions and _phrase(k, row, 0)
                                          for k in ("age", "smile")):  # fmt: skip
            words.append(("a", None))
        elif topic in ("age", "smile") and phrase and words[-1][1] == "style":
            words.append(("a", None))
        words += phrase
    return Caption(" ".join(w for w, _ in words), tuple(words), mentions, choice)


def _phrase(topic: str, row: dict, pick: int) -> list[tuple[str, str | None]]:
    """The words that name `topic`, each with its attribute; empty if it cannot be seen."""
    if topic == "hair":
        return _hair(row)
    if topic == "clothes":
        if row["style"] == "bronze":
            return []
        noun = _GARMENTS[pick]
        return [("in", None), ("a", None), (row["clothes"], "clothes"), (noun, None)]
    kind = _kind(topic, row)
    if kind is None:
        return []
    text = _SYNONYMS[topic][kind][pick]
    if topic == "background" and kind == "plain":
        text = text.format(next((w for w, end in _HUES.items() if row["hue"] < end), "red"))
        return [(w, "hue" if w in _HUES else "background") for w in text.split()]
    return [(w, topic) for w in text.split()]


def _kind(topic: str, row: dict) -> str | None:
    """Which entry of `_SYNONYMS[topic]` is true of the record and can be seen in it."""
    human = row["subject"] in HUMANS
    if topic == "subject":
        child = human and row["age"] < 0.2
        return {"woman": "girl", "man": "boy"}[row["subject"]] if child else row["subject"]
    if topic == "age":
        return "old" if row["age"] > 0.75 else "young" if 0.2 <= row["age"] < 0.35 else None
    if topic == "smile":
        return "happy" if row["smile"] > 0.4 else "sad" if row["smile"] < -0.4 else None
    if topic == "eyes" and row["glasses"] == "sunglasses":
        return None
    value = row[topic]
    return value if value in _SYNONYMS[topic] else None


def _hair(row: dict) -> list[tuple[str, str | None]]:
    style, hidden = row["hair_style"], row["hat"] != "none"
    if row["subject"] not in HUMANS or style == "bald" or (style == "mohawk" and hidden):
        return []
    colour = [] if row["style"] == "bronze" else [(row["hair_colour"], "hair_colour")]
    if style == "mohawk":
        return [("with", None), ("a", None), *colour, ("mohawk", "hair_style")]
    return [("with", None), (_HAIR[style], "hair_style"), *colour, ("hair", None)]
