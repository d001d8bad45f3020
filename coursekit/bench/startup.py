"""Seconds until a command answers, beside the bare interpreter in the same run."""

import subprocess
import sys
from collections.abc import Iterator

from coursekit.bench import Row, medians

COMMANDS = {
    "import coursekit": "import coursekit",
    "coursekit --help": "from coursekit.cli import main; main(['--help'])",
    "coursekit tour --seed x": "from coursekit.cli import main; main(['tour', '--seed', 'x'])",
    "coursekit train nothing": "from coursekit.cli import main; main(['train', 'nothing'])",
}
N = 7


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """One row a command; each runs in an interpreter of its own. Seed and device play no part."""
    for name, code in COMMANDS.items():
        ours, peer = medians(lambda code=code: _python(code), lambda: _python("pass"), n=N)
        yield Row(name, ours, peer, "s", "lower", N)


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
