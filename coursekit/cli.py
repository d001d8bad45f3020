"""The commands: `coursekit tour`, `bench`, `train`, `verify`, `doctor`, `grade`, `build` and more.

Recipes and benches are found by listing their folders; nothing heavy is imported before the
arguments have been accepted. A refusal is one line on stderr with exit code 2, Ctrl-C is one line
with 130; a traceback means a defect in the package.
"""

import ast
import importlib
import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from typer.exceptions import TyperException

from coursekit.grading import commands as grading
from coursekit.terminal import (
    accepted,
    bar,
    chief,
    complain,
    ctrl_c,
    explain,
    number,
    target_folder,
)

HOUSE = Path(__file__).parent


# ---- what there is: one file, one name ------------------------------------------------------


def found(folder: str) -> dict[str, Path]:
    """The programs in a folder of this package: portraits_ddpm.py is "portraits-ddpm"."""
    files = sorted((HOUSE / folder).glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): file for file in files}


def menu(folder: str) -> str:
    """The names in a folder, each with the first line of its docstring; nothing is imported."""
    lines = []
    for name, file in found(folder).items():
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        lines.append(f"{name}: {doc.partition(chr(10))[0]}")
    return "\n\n".join(["NAME is one of", *lines])


def check_name(folder: str, name: str) -> None:
    if name not in found(folder):
        raise ValueError(f"NAME={name!r} is not known: accepted are {', '.join(found(folder))}")


def program(folder: str, name: str) -> ModuleType:
    """The module of that name in the folder, imported."""
    return importlib.import_module(f"coursekit.{folder}.{found(folder)[name].stem}")


# ---- arguments ------------------------------------------------------------------------------


Seed = Annotated[int, typer.Option(
    parser=number(int, 0, 2**63 - 1), help="Same seed, same result.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="A hands-on course on image editing with diffusion models.")


# ---- commands -------------------------------------------------------------------------------


@app.command()
def tour(
    seed: Seed = 0,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the page and its pictures.")] =
        Path("output/tour"),
    image: Annotated[Path | None, typer.Option(help="A picture of your own to edit.")] = None,
) -> None:
    """One portrait through every method: an HTML page and contact sheets."""
    from coursekit.images import read
    from coursekit.pretrained import check_device

    start = time.perf_counter()
    with ctrl_c(f"nothing was written, '{target_folder(out)}' is as it was"):
        if image is not None:
            read(image)  # a bad picture is refused before the first section runs, not after
        check_device(device)
        run = importlib.import_module("coursekit.tour").run
        with closing(run(out, seed, device, image)) as events, bar() as show:
            for event in events:
                show(event.section, event.done, event.total)
    typer.echo(f"The tour took {time.perf_counter() - start:.0f} s. Open {out / 'index.html'}")


@app.command(epilog=menu("bench"))
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to measure.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Measure, with a peer's figure from the same run beside ours."""
    from coursekit.bench import print_table
    from coursekit.pretrained import check_device

    check_name("bench", name)
    with ctrl_c("the table is not complete"):
        check_device(device)
        rows = program("bench", name).rows(seed=seed, device=device)
        if as_json:
            for row in rows:
                typer.echo(json.dumps(row.as_dict(), allow_nan=False))
        else:
            print_table(name, rows)


@app.command(epilog=menu("recipes"))
def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which recipe.")],
    data: Annotated[Path | None, typer.Option(help="Folder of your own pictures.")] = None,
    start: Annotated[str | None, typer.Option(
        "--from", help="Weights to begin with: shipped name, folder or hub id.")] = None,
    steps: Annotated[int | None, typer.Option(
        parser=number(int, 1, 10**9), help="Updates in all; the recipe's own number if not given."
    )] = None,
    minutes: Annotated[float | None, typer.Option(
        parser=number(float, 0.01, 1e6), help="Stop after this time, whatever was reached."
    )] = None,
    out: Annotated[Path | None, typer.Option(
        help="Folder for model and checkpoint.", show_default="output/NAME")] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option(
        "--resume/--no-resume", help="Go on from the checkpoint in the folder.")] = True,
    tiny: Annotated[bool, typer.Option(
        "--tiny", help="A toy size that only shows that it runs.")] = False,
) -> None:
    """Train a model by its recipe; run it again to resume."""
    from coursekit.pretrained import check_device, find

    check_name("recipes", name)
    if data is not None and not data.is_dir():
        raise ValueError(f"--data='{data}': there is no such folder")
    if start is not None:
        find(start)
    out = target_folder(out or Path("output") / name)
    with ctrl_c(f"coursekit train {name} --out {out} goes on from the last checkpoint"):
        check_device(device)
        updates = program("recipes", name).run(
            out, data=data, steps=steps, minutes=minutes, start=start, resume=resume,
            device=device, seed=seed, tiny=tiny)
        with closing(updates), bar() as show:
            for update in updates:
                speed = f"{update.images_per_second:.0f} images/s"
                if update.step == 0:  # before the first update: pictures are being made or read
                    show("preparing", 0, None, f"{update.images} pictures  {speed}")
                    continue
                share = update.step / update.steps
                if minutes:
                    share = max(share, update.seconds / (60 * minutes))
                show(f"step {update.step}", share, 1.0, f"loss {update.loss:.4f}  {speed}")
    if chief():
        typer.echo(f"The model is in {out}; its card.md says what it is")


@app.command()
def verify(
    notebook: Annotated[Path, typer.Argument(
        metavar="NOTEBOOK", help="Your copy of a lab, e.g. labs/05_ddim.ipynb.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check your lab: your answers in the original notebook, run afresh. A self-check."""
    from coursekit.labs import verify as labs

    with ctrl_c("nothing was changed"), bar() as show:
        result = labs.verify(notebook, lambda words: show(words, 0, None))
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
    else:
        typer.echo("\n".join(labs.table(result)))
    if not result.done:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Look at this machine: versions, device, memory, what is missing and how to fix it."""
    from rich.console import Console
    from rich.table import Table

    from coursekit.doctor import examine, pip_line

    console = Console()
    with console.status("looking around"):
        findings = list(examine())
    table = Table("", "", "found", box=None)
    for f in findings:
        table.add_row("[red]x[/]" if f.fix else "[green]ok[/]", f.what, f.value)
    console.print(table)
    fixes = [f"{f.what}: {f.fix}" for f in findings if f.fix and not f.fix.startswith("pip inst")]
    if pip_line(findings):
        fixes.append(pip_line(findings))
    for fix in fixes:
        typer.echo(fix)
    if fixes:
        raise typer.Exit(1)
    typer.echo("All is well.")


for command in (grading.grade, grading.override, grading.appeal):
    app.command(rich_help_panel="For instructors")(command)


@app.command(rich_help_panel="For maintainers")
def build(
    stem: Annotated[list[str] | None, typer.Argument(
        metavar="[STEM]...", help="Which labs, e.g. 05_ddim; all if not given.")] = None,
    run: Annotated[bool, typer.Option(
        "--run", help="Run the solution first and save its outputs.")] = False,
    only_look: Annotated[bool, typer.Option(
        "--check", help="Write nothing; code 1 if a file would change.")] = False,
) -> None:
    """Build labs/ from solutions/, the same bytes every time."""
    from coursekit.labs import build as labs
    from coursekit.labs.notebook import write

    known, changed = labs.stems(), []
    for name in stem or known:
        if name not in known:
            raise ValueError(f"STEM={name!r} is not known: accepted are {', '.join(known)}")
        with ctrl_c(f"labs/{name}.ipynb is as it was"):
            if run and not only_look:
                labs.build(name)  # says what is missing before anything runs
                typer.echo(f"running solutions/{name}.ipynb", err=True)
                labs.execute(labs.SOLUTIONS / f"{name}.ipynb")
            for folder, content in zip((labs.SOLUTIONS, labs.LABS), labs.build(name), strict=True):
                path = folder / f"{name}.ipynb"
                if not path.is_file() or path.read_bytes() != content:
                    changed.append(f"{folder.name}/{name}.ipynb")
                    if not only_look:
                        write(path, content)
    typer.echo("\n".join(changed) or "nothing has changed")
    if only_look and changed:
        raise typer.Exit(1)


@app.command(rich_help_panel="For maintainers")
def freeze(
    folder: Annotated[Path, typer.Argument(
        metavar="FOLDER", help="A trained model with its card.md.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name to ship it under.")],
) -> None:
    """Copy a trained model into the package's weights and its manifest."""
    from coursekit import manifest

    typer.echo(f"{name} is in {manifest.freeze(folder, name)}")


# ---- the entry point -------------------------------------------------------------------------


def main(args: list[str] | None = None) -> None:
    """The entry point: runs a command and exits with 0, 1, 2 or 130."""
    args = sys.argv[1:] if args is None else args
    try:
        code = app(args or ["--help"], prog_name="coursekit", standalone_mode=False)
    except TyperException as refusal:
        complain(refusal.format_message() + accepted(refusal))
        code = 2
    except BrokenPipeError:  # the reader of a table has gone; flushing would fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as problem:
        line = explain(problem)
        if line is None:
            raise
        complain(line)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
