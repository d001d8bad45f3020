"""`coursekit doctor`: what this machine offers, what is missing, and the command that fixes it."""

import importlib.metadata
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED_MEMORY = 4.0  # GB; what a lecture may take
NEEDED_DISK = 2.0  # GB; output, caches and checkpoints


@dataclass(frozen=True)
class Finding:
    """One line of the report: `fix` is a command or a sentence, empty where all is well."""

    what: str
    value: str
    fix: str = ""


def examine() -> Iterator[Finding]:
    """Everything that can go wrong before the first picture, cheapest first."""
    from coursekit import __version__

    yield Finding("coursekit", __version__)
    yield _python()
    yield from _packages()
    yield _memory()
    yield _disk()
    yield from _devices()
    yield from _weights()


def pip_line(findings: list[Finding]) -> str:
    """One command that installs every package that is missing or too old; "" if none is."""
    wanted = [f.fix for f in findings if f.fix.startswith("pip install ")]
    return " ".join(["pip install", *(fix.removeprefix("pip install ") for fix in wanted)]
                    if wanted else [])


def _python() -> Finding:
    fix = "" if sys.version_info >= (3, 11) else "install Python 3.11 or later"
    return Finding("Python", f"{platform.python_version()} on {platform.platform(terse=True)}", fix)


def _packages() -> Iterator[Finding]:
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        yield Finding("packaging", "missing", 'pip install "packaging"')
        return
    for line in _requirements():
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(need.name, "missing", f'pip install "{need.name}{need.specifier}"')
            continue
        if need.specifier.contains(found, prereleases=True):
            yield Finding(need.name, found)
        else:
            yield Finding(need.name, f"{found}, needed is {need.specifier}",
                          f'pip install "{need.name}{need.specifier}"')


def _requirements() -> list[str]:
    """What the package asks for: as installed, or as written beside a source tree in use."""
    source = Path(__file__).parent.parent / "pyproject.toml"
    if source.is_file():
        return tomllib.loads(source.read_text(encoding="utf-8"))["project"]["dependencies"]
    try:
        return importlib.metadata.requires("coursekit") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _memory() -> Finding:
    try:
        import psutil
    except ModuleNotFoundError:
        return Finding("memory", "unknown without psutil")
    memory = psutil.virtual_memory()
    free, total = memory.available / 1e9, memory.total / 1e9
    fix = "" if free >= NEEDED_MEMORY else f"close programs: {NEEDED_MEMORY:g} GB are needed"
    return Finding("memory", f"{free:.1f} of {total:.1f} GB free", fix)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    fix = "" if free >= NEEDED_DISK else f"make room here: {NEEDED_DISK:g} GB are needed"
    return Finding("disk", f"{free:.1f} GB free in {Path.cwd()}", fix)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except ModuleNotFoundError:
        return  # among the missing packages already
    except Exception as problem:  # a broken build fails with whatever its libraries say
        yield Finding("torch", f"cannot be imported ({problem})",
                      'pip install --force-reinstall "torch"')
        return
    yield Finding("cpu", f"{torch.get_num_threads()} threads, "
                         f"{torch.backends.cpu.get_cpu_capability()}")
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        yield Finding(f"cuda:{i}", f"{card.name}, {card.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        yield Finding("mps", "available")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield Finding("accelerator", "none: the course is made to run without one")


def _weights() -> Iterator[Finding]:
    from coursekit import manifest

    for name in manifest.names():
        try:
            folder = manifest.path(name)
        except ValueError as problem:
            yield Finding(f"model {name}", "damaged", str(problem))
        else:
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            yield Finding(f"model {name}", f"{size / 1e6:.1f} MB, as shipped")
