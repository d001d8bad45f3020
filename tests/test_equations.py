"""No displayed equation without a numeric twin, no twin without an equation.

A twin is a test marked `equation("NN.k")`; see `equations/__init__.py`. The twins themselves are
run as any other test; here only the two lists are compared.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import pytest
from equations import exact, mutated, sampled

HERE = Path(__file__).parent
LECTURES = sorted((HERE.parent / "lectures").glob("*.ipynb"))

CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
TAG = re.compile(r"\\tag\{([^}]*)\}")
UNDOLLARED = re.compile(r"\\\[|\\begin\{(?:equation|align|gather|multline|eqnarray)\*?\}")
REFERENCE = re.compile(r"\(([012]\d\.\d+)\)")

Twins = Mapping[str, Iterable[tuple[str, str]]]  # tag -> (module, case id)


def prose(path: Path) -> list[tuple[str, str]]:
    """(cell id, text) of a notebook's markdown cells, without what is set as code."""
    cells = nbformat.read(path, as_version=4).cells
    return [(c.id, CODE.sub(" ", c.source)) for c in cells if c.cell_type == "markdown"]


def tags_and_faults(stem: str, cells: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The tags of one lecture in their order, and what is wrong with its displays."""
    tags, found = [], []
    for name, text in cells:
        for block in DISPLAY.findall(text):
            mine = TAG.findall(block)
            if len(mine) != 1:
                found.append(f"{stem}, {name}: {len(mine)} tags on {' '.join(block.split())[:50]}")
            tags += mine
        rest = DISPLAY.sub(" ", text)
        if TAG.search(rest) or UNDOLLARED.search(rest) or rest.count("$$"):
            found.append(f"{stem}, {name}: a display that does not stand between $$ and $$")
    for tag in tags:
        if not re.fullmatch(rf"{stem[:2]}\.[1-9]\d*", tag):
            found.append(f"{stem}: tag {tag} is not {stem[:2]}.k")
        if tags.count(tag) > 1:
            found.append(f"{stem}: tag {tag} stands {tags.count(tag)} times")
    return tags, found


def faults(lectures: Mapping[str, list[tuple[str, str]]], twins: Twins) -> list[str]:
    """All that is amiss between displays, references in the text, and twins."""
    found, known = [], set()
    for stem, cells in lectures.items():
        tags, wrong = tags_and_faults(stem, cells)
        found += wrong
        known |= set(tags)
    for stem, cells in lectures.items():
        for name, text in cells:
            found += [f"{stem}, {name}: refers to ({tag}), which no display has"
                      for tag in REFERENCE.findall(text) if tag not in known]
    for tag in sorted(known - set(twins)):
        found.append(f"equation {tag} has no twin")
    for tag, cases in sorted(twins.items()):
        if tag not in known:
            found.append(f"twin {tag} has no equation")
        for kind in ("true", "mutated"):
            if not any(kind in case for _, case in cases):
                found.append(f"twin {tag} has no {kind} case")
        for module in {module for module, _ in cases} - {f"test_{tag[:2]}"}:
            found.append(f"twin {tag} stands in {module}, not in test_{tag[:2]}")
    return found


def collected(session: pytest.Session, files: Iterable[Path]) -> Twins:
    """The marked tests of some files, found as pytest itself finds them, marks and case ids."""
    twins = defaultdict(list)
    for file in files:
        for item in session.genitems(pytest.Module.from_parent(session, path=file)):
            case = item.callspec.id if hasattr(item, "callspec") else ""
            for mark in item.iter_markers("equation"):
                twins[mark.args[0]].append((file.stem, case))
    return twins


def test_every_equation_has_a_twin_and_every_twin_an_equation(request):
    twins = collected(request.session, sorted((HERE / "equations").glob("test_*.py")))
    lectures = {path.stem: prose(path) for path in LECTURES}
    assert sum(len(DISPLAY.findall(text)) for cells in lectures.values() for _, text in cells) > 50
    assert faults(lectures, twins) == []


# ---- proofs that it can fail -----------------------------------------------------------------

GOOD = [("jump", r"A claim: $$x = y \tag{01.1}$$ and $$y = z \tag{01.2}$$ so by (01.1) we win.")]
BOTH = [("test_01", "true"), ("test_01", "mutated-sign=-1")]
TWO = {"01.1": BOTH, "01.2": BOTH}


def test_a_good_pair_passes():
    assert faults({"01_a": GOOD}, TWO) == []


@pytest.mark.parametrize(("lectures", "twins", "words"), [
    ({"01_a": GOOD}, {"01.1": BOTH}, "equation 01.2 has no twin"),
    ({"01_a": GOOD}, {**TWO, "01.3": BOTH}, "twin 01.3 has no equation"),
    ({"01_a": GOOD}, {**TWO, "01.2": BOTH[:1]}, "twin 01.2 has no mutated case"),
    ({"01_a": GOOD}, {**TWO, "01.2": BOTH[1:]}, "twin 01.2 has no true case"),
    ({"01_a": GOOD}, {**TWO, "01.2": [("test_02", case) for _, case in BOTH]}, "not in test_01"),
    ({"01_a": [*GOOD, ("more", "$$a = b$$")]}, TWO, "more: 0 tags on a = b"),
    ({"01_a": [*GOOD, ("more", r"$$a \tag{01.2} = b \tag{01.1}$$")]}, TWO, "more: 2 tags"),
    ({"01_a": [*GOOD, ("more", r"$$a = b \tag{01.2}$$")]}, TWO, "tag 01.2 stands 2 times"),
    ({"01_a": [*GOOD, ("more", r"$$a = b \tag{02.1}$$")]}, {**TWO, "02.1": BOTH}, "not 01.k"),
    ({"01_a": [*GOOD, ("more", r"\begin{align}a = b\end{align}")]}, TWO, "does not stand between"),
    ({"01_a": [*GOOD, ("more", r"\[a = b\]")]}, TWO, "does not stand between"),
    ({"01_a": [*GOOD, ("more", "as (01.7) says")]}, TWO, r"refers to \(01.7\)"),
])
def test_a_fault_is_caught(lectures, twins, words):
    found = faults(lectures, twins)
    assert len(found) >= 1 and re.search(words, "\n".join(found)), found


def test_displays_are_read_from_notebooks(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell("$$\na = b\n\\tag{01.1}\n$$ and `$$` as code", id="one"),
        nbformat.v4.new_code_cell("# $$c = d$$", id="two")])
    nbformat.write(notebook, tmp_path / "01_a.ipynb")
    assert tags_and_faults("01_a", prose(tmp_path / "01_a.ipynb")) == (["01.1"], [])


def test_twins_are_read_from_marks_and_case_ids(request, tmp_path):
    (tmp_path / "test_97.py").write_text(
        "import pytest\n"
        "@pytest.mark.equation('97.1')\n"
        "@pytest.mark.parametrize('k', [pytest.param(1, id='true'), "
        "pytest.param(2, id='mutated-k')])\n"
        "def test_both(k): pass\n"
        "@pytest.mark.equation('97.2')\n"
        "def test_bare(): pass\n"
        "def test_unmarked(): pass\n", encoding="utf-8")
    twins = collected(request.session, [tmp_path / "test_97.py"])
    assert twins == {"97.1": [("test_97", "true"), ("test_97", "mutated-k")],
                     "97.2": [("test_97", "")]}


def test_a_twin_that_ignores_its_sign_fails():
    def blind(sign=1):
        return exact(2.0, 2.0)

    def seeing(sign=1):
        return exact(sign * 2.0, 2.0)

    def broken(sign=1):
        return float("nan")

    for residual in (blind, seeing):
        mutated(sign=-1)(residual)({})
    mutated(sign=-1)(seeing)({"sign": -1})
    with pytest.raises(AssertionError, match="goes unnoticed"):
        mutated(sign=-1)(blind)({"sign": -1})
    with pytest.raises(AssertionError, match="the sides differ"):
        mutated(sign=-1)(broken)({})
    with pytest.raises(AssertionError, match="goes unnoticed"):
        mutated(sign=-1)(broken)({"sign": -1})
    with pytest.raises(ValueError, match="none given"):
        mutated()


def test_sampled_counts_standard_errors(generator):
    import torch

    draws = torch.randn(10_000, 3, generator=generator, dtype=torch.float64)
    assert sampled(draws, 0.0) < 1 < sampled(draws, 0.1)
