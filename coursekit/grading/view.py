"""What can be seen from inside the walls: the arguments of bubblewrap.

An empty root, and in it, read-only, the C library, this interpreter with its packages, and this
package without what an answer must not read: the exercises, which hold what is wanted, the labs,
and the side that judges. No repository, no home, no environment, no other submission.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import coursekit
from coursekit.grading import slot

PACKAGE = Path(coursekit.__file__).parent
ROOT = PACKAGE.parent
SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")
SHARED = {Path(p) for p in ("/", "/usr", "/usr/local")}  # prefixes that hold more than Python
ELSEWHERE = "/var/tmp"
DEVICES = ("null", "zero", "full", "random", "urandom")
KEPT = {  # folders of the package that are empty but for these
    "classroom/check/exercises": ("__init__.py",),
    "grading": ("__init__.py", "forker.py", "protocol.py", "seccomp.py", "worker.py"),
    "labs": (),
}
HIDDEN = (".git", "labs", "solutions", "tests")  # of a clone, where it lies in a folder of Python's
ENVIRONMENT = {
    "USER": "answers", "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg",
    "CUDA_VISIBLE_DEVICES": "", "MALLOC_ARENA_MAX": "2",
    "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}  # one thread: a process with more cannot be forked
NAMESPACES = ("ipc", "pid", "net", "uts", "cgroup-try")
CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID")  # the forker's; no worker keeps them


def python(code: str) -> list[str]:
    """The command that runs code with this package and nothing of the folder it starts in."""
    alone = [] if site.ENABLE_USER_SITE else ["-s"]
    return [sys.executable, "-P", *alone, "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]


def environment(*, walled: bool = True) -> dict[str, str]:
    user = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    place = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"),
                          scratch() if walled else tempfile.gettempdir())
    return ENVIRONMENT | place | user


def scratch() -> str:
    """The one folder that can be written to: /tmp, unless something that must be seen lies there."""
    seen = [PACKAGE, *interpreter()]
    return ELSEWHERE if any(path.is_relative_to("/tmp") for path in seen) else "/tmp"


def arguments() -> list[str]:
    """Everything that bubblewrap is told, but for the command."""
    shown, place = list(system()) + list(interpreter()), scratch()
    found = [f"--unshare-{name}" for name in NAMESPACES]
    if os.getuid():
        found += ["--unshare-user", "--uid", str(slot.PROBE), "--gid", str(slot.PROBE)]
    found += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "answers"]
    for name, value in environment().items():
        found += ["--setenv", name, value]
    found += ["--cap-drop", "ALL"]
    for name in CAPABILITIES:
        found += ["--cap-add", name]
    for folder in folders([*shown, PACKAGE, Path("/dev/null")]):
        found += ["--perms", "0755", "--dir", str(folder)]
    for path in shown:
        found += (["--symlink", os.readlink(path), str(path)] if path.is_symlink() else
                  ["--ro-bind", str(path), str(path)])
    found += ["--ro-bind", str(PACKAGE), str(PACKAGE), *masks(shown)]
    for name in DEVICES:
        found += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    return [*found, "--symlink", place, "/dev/shm", "--proc", "/proc", "--perms", "1777",
            "--size", str(2**25), "--tmpfs", place, "--remount-ro", "/", "--chdir", place]


def system() -> Iterator[Path]:
    """The C library and what belongs to it, with the links that lead there."""
    for path in map(Path, SYSTEM):
        if path.exists():
            yield path


def interpreter() -> Iterator[Path]:
    """This Python: its files, its environment, its packages; nothing that a shared prefix adds."""
    prefixes = [Path(p) for p in (sys.base_prefix, sys.base_exec_prefix, sys.prefix)]
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    packages = [*map(sysconfig.get_path, names), *site.getsitepackages()]
    packages += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    wanted = [p for p in prefixes if p not in SHARED] + [Path(p) for p in packages]
    if any(p in SHARED for p in prefixes):
        wanted += [Path(sys.executable).resolve()]
    whole = [Path(p) for p in ("/usr/lib", "/usr/lib32", "/usr/lib64")]
    for path in wanted:
        if path.exists() and not any(path.is_relative_to(known) for known in whole):
            whole.append(path)
            yield path


def masks(shown: list[Path]) -> Iterator[str]:
    """Empty folders over what must not be read."""
    for name, files in KEPT.items():
        folder = PACKAGE / name
        yield from ("--perms", "0755", "--tmpfs", str(folder))
        for file in files:
            yield from ("--ro-bind", str(folder / file), str(folder / file))
        yield from ("--remount-ro", str(folder))
    for folder in (ROOT / name for name in HIDDEN):
        if folder.is_dir() and any(folder.is_relative_to(path) for path in shown):
            yield from ("--tmpfs", str(folder), "--remount-ro", str(folder))


def folders(paths: Iterable[Path]) -> list[Path]:
    """All folders above some paths, the outer ones first."""
    above = {parent for path in paths for parent in path.parents}
    return sorted(above - {Path("/")})
