"""The tour's page: HTML that links to the pictures beside it, and can be read aloud."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from coursekit import __version__
from coursekit.classroom.show import Figure, Table

if TYPE_CHECKING:
    from coursekit.tour import Context

CSS = """
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1rem 4rem; color: #1a1a1a;
       background: #fff; font: 1rem/1.55 system-ui, sans-serif; }
p, li { max-width: 44rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 3rem; padding-top: .6rem; border-top: 1px solid #bbb; }
a { color: #00558a; }
figure { margin: 1.4rem 0; }
img { max-width: 100%; height: auto; }
figcaption, caption { max-width: 44rem; padding: .3rem 0; color: #444; text-align: left; }
table { border-collapse: collapse; margin: 1.4rem 0; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd; }
footer { margin-top: 3rem; color: #444; }
"""


@dataclass(frozen=True)
class Section:
    """A finished section: anchor, title, paragraphs, what to see, and the seconds it took."""

    name: str
    title: str
    paragraphs: list[str]
    shown: list[Figure | Table]
    seconds: float

    def file(self, i: int) -> str:
        """The file of its i-th figure."""
        return f"{self.name}-{i + 1}.png"


def page(context: Context, sections: list[Section]) -> str:
    """The whole page; pictures are links to files beside it."""
    links = "".join(f'<li><a href="#{s.name}">{html.escape(s.title)}</a></li>' for s in sections)
    body = "\n".join(_section(s) for s in sections)
    seconds = [[s.title, f"{s.seconds:.1f} s"] for s in sections]
    seconds.append(["all of them", f"{sum(s.seconds for s in sections):.1f} s"])
    times = Table(["section", "time"], seconds, f"Run with {torch.get_num_threads()} threads")
    image = f", picture {html.escape(str(context.image))}" if context.image else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>coursekit: the tour</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>One portrait through every method</h1>
<p>Everything below was computed on this machine a moment ago: coursekit {__version__},
torch {torch.__version__.partition("+")[0]}, model {html.escape(Path(context.model.source).name)},
device {html.escape(context.device)}, seed {context.seed}{image}. Another seed shows other people,
<code>--image FILE</code> your own picture.</p>
<nav aria-label="Sections"><ol>{links}</ol></nav>
</header>
<main>
{body}
</main>
<footer>
{times._repr_html_()}
<p>How and why each of these works is in the lectures: <code>jupyter lab lectures</code>.</p>
</footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = [f'<section id="{section.name}">', f"<h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(p)}</p>" for p in section.paragraphs]
    for i, item in enumerate(section.shown):
        figure = isinstance(item, Figure)
        parts.append(item.tag(section.file(i)) if figure else item._repr_html_())
    return "\n".join([*parts, "</section>"])
