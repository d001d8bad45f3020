"""The floors of the house: a file imports from lower floors and from its own folder."""

import ast
from pathlib import Path

import pytest

import coursekit

HOUSE = Path(coursekit.__file__).parent
FLOORS = {
    "diffusion": 0, "portraits": 0, "images": 0,
    "nets": 1, "pretrained": 1, "manifest": 1,
    "edits": 2,
    "classroom": 3,
    "recipes": 4, "tour": 4, "bench": 4, "labs": 4, "grading": 4,
    "cli": 4, "doctor": 4, "terminal": 4, "__main__": 4,
}
# What the rule of floors does not say: unit -> the units it may, or may not, import.
ALSO = {"pretrained": {"nets", "manifest"}, "cli": set(FLOORS), "__main__": {"cli"},
        "bench": {"recipes",  # a shipped model is measured against the data of its recipe
                  "grading", "labs"},
        "grading": {"labs", "terminal"}}  # marks rest on the lab as it was handed out
NEVER = {"edits": {"edits"}, "classroom": {"edits"}}
SEEDS = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed_all", "random.seed",
         "np.random.seed", "numpy.random.seed"}
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py"}


def modules_imported(tree: ast.AST, package: list[str]) -> set[str]:
    """Dotted names of what a file imports, relative imports resolved against its package."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def faults(path: str, source: str) -> list[str]:
    """What is wrong with a file of the package; `path` is relative to it."""
    parts, tree = Path(path).with_suffix("").parts, ast.parse(source)
    unit, found = parts[0], []
    if Path(path).name in FORBIDDEN_NAMES:
        found.append("a file name that says nothing")
    if unit != "__init__" and unit not in FLOORS:
        return [*found, f"{unit} has no floor"]
    floor = FLOORS.get(unit, 0)
    for name in modules_imported(tree, ["coursekit", *parts[:-1]]):
        top, _, other = name.partition(".")
        other = other.partition(".")[0]
        if top == "coursekit" and other in FLOORS:
            below = FLOORS[other] < floor or other == unit or other in ALSO.get(unit, ())
            if not below or other in NEVER.get(unit, ()):
                found.append(f"imports {name}")
        if top in ("labs", "solutions", "tests"):
            found.append(f"imports {name}")
    forked = {id(node) for block in ast.walk(tree) if isinstance(block, ast.With)
              and "fork_rng" in ast.unparse(block.items[0]) for node in ast.walk(block)}
    for call in (node.func for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call, ast.Name) and call.id == "print" and floor < 4:
            found.append("prints")
        if isinstance(call, ast.Attribute) and call.attr == "cuda":
            found.append("calls .cuda()")
        if id(call) not in forked and ast.unparse(call) in SEEDS:
            found.append("seeds a global generator")
    return found


FILES = sorted(p.relative_to(HOUSE).as_posix() for p in HOUSE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_every_file_keeps_to_its_floor(path):
    assert faults(path, (HOUSE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path, source", [
    ("diffusion/sample.py", "from coursekit.portraits import render"),
    ("diffusion/sample.py", "from coursekit import images"),
    ("diffusion/sample.py", "def f():\n    import coursekit.nets.unet"),
    ("portraits/render.py", "from ..images import load"),
    ("images.py", "from coursekit.diffusion.schedule import Schedule"),
    ("nets/unet.py", "from coursekit import pretrained"),
    ("nets/unet.py", "from coursekit.edits.sdedit import edit"),
    ("edits/p2p.py", "from .sdedit import edit"),
    ("edits/p2p.py", "from coursekit.edits import sdedit"),
    ("edits/p2p.py", "from coursekit.classroom import metrics"),
    ("classroom/show.py", "from coursekit.edits import sdedit"),
    ("recipes/judge.py", "from coursekit.tour import run"),
    ("recipes/judge.py", "from solutions import answers"),
    ("diffusion/helpers.py", ""),
    ("extras/more.py", ""),
    ("edits/p2p.py", "print('step')"),
    ("nets/unet.py", "x = net.cuda()"),
    ("tour/noise.py", "torch.manual_seed(0)"),
])
def test_a_bad_file_is_caught(path, source):
    assert len(faults(path, source)) == 1


@pytest.mark.parametrize("path, source", [
    ("diffusion/sample.py", "from coursekit.diffusion.schedule import Schedule"),
    ("pretrained.py", "from coursekit.nets.unet import UNet"),
    ("edits/p2p.py", "from coursekit.nets import control\nfrom coursekit.diffusion import sample"),
    ("tour/edits.py", "from coursekit.edits import sdedit\nfrom coursekit.classroom import show"),
    ("cli.py", "from coursekit.doctor import examine\nprint('hello')"),
    ("doctor.py", "from coursekit import __version__"),
    ("tour/noise.py", "g.manual_seed(0)"),
    ("bench/x.py", "with torch.random.fork_rng():\n    torch.manual_seed(0)"),
    ("__main__.py", "from coursekit.cli import main"),
])
def test_a_good_file_is_let_through(path, source):
    assert faults(path, source) == []
