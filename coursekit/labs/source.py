"""What a stranger's source says, read without Python's parser.

The parser can be made slow, large or loud by what it reads, and it gives up at the first error.
Every repeat in the pattern here is possessive, so that nothing can make it go back: any text takes
time in proportion to its length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

HEAD = 40  # tokens of a line that are looked at for what it defines
PREFIX = "rRbBfFuU"
BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
TOKEN = re.compile(r"""(?x)
    (?P<comment>\#[^\n]*+)
  | (?P<string>[rRbBfFuU]{0,2}+(?:
        \"{3}[^"\\]*+(?:(?:\\[\s\S]|"(?!""))[^"\\]*+)*+(?:\"{3}|\\?\Z)
      | \'{3}[^'\\]*+(?:(?:\\[\s\S]|'(?!''))[^'\\]*+)*+(?:\'{3}|\\?\Z)
      | "[^"\\\n]*+(?:\\[\s\S][^"\\\n]*+)*+"?+
      | '[^'\\\n]*+(?:\\[\s\S][^'\\\n]*+)*+'?+))
  | (?P<number>\.?\d[\w.]*+(?:(?<=[eE])[+-]\d++)?+)
  | (?P<name>\w++)
  | (?P<newline>\n)
  | (?P<space>\\\n|[^\S\n]++)
  | (?P<op>\*\*=?|//=?|>>=?|<<=?|->|\.\.\.|[=!<>:+\-*/%&|^@]=|[^\w\s])
""")


def tokens(source: str) -> Iterator[tuple[str, str]]:
    """The kind and the text of every token, also of what is no Python."""
    for found in TOKEN.finditer(source.replace("\r\n", "\n").replace("\r", "\n")):
        yield found.lastgroup, found[0]


def defines(source: str) -> set[str]:
    """The names that a cell's source defines at its top level; lines of magic are passed over.

    Where a bracket or a string has no end, what begins a line counts as the top level.
    """
    names, line, depth, whole = set(), [], 0, True
    for kind, text in tokens(source):
        magic = line[:1] in (["%"], ["!"], ["?"])
        if kind == "newline":
            if not depth or magic:
                names |= _defined(line)
                line = []
        elif kind != "comment" and len(line) < HEAD and (kind != "space" or not line):
            line.append(text)  # a space comes first in a line that is not at the left edge
        if kind == "op" and text in BRACKETS and not magic:
            depth = max(0, depth + BRACKETS[text])
        whole = whole and (kind != "string" or _ends(text))
    names |= _defined(line)
    if depth or not whole:
        names |= set(re.findall(r"(?m)^(?:def|class)[ \t]+(\w+)", source))
    return {unicodedata.normalize("NFKC", name) for name in names}


def _defined(line: list[str]) -> set[str]:
    """What a line defines, from its first tokens."""
    line = line[1:] if line[:1] == ["async"] else line
    if line[:1] in (["def"], ["class"]):
        return set(line[1:2])
    names = set()
    while line[1:2] == ["="] and line[0].isidentifier():
        names.add(line[0])
        line = line[2:]
    return names | ({line[0]} if line[1:2] == [":"] and "=" in line else set())


def _ends(string: str) -> bool:
    """Whether a string over several lines has its end."""
    quote = string.lstrip(PREFIX)[:3]
    return quote not in ('"""', "'''") or len(string) > 5 and string.endswith(quote)
