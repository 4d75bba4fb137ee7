"""The program ``squawk``: many scripts judged by one process. What its findings mean here is ``engine``'s business.

It comes with the package ``squawk-cli`` as a program beside Python, for Linux (glibc) and macOS on x86-64 and ARM.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dbplatform.migrations.errors import LintCouldNotRun

#: What scripts are judged for where no server says its version: the newest PostgreSQL there is.
NEWEST = 18
_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One finding of squawk."""

    script: int
    """Which of the scripts."""
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""
    level: str
    """``warning`` or ``error``."""
    rule: str
    message: str
    help: str | None


def remarks(scripts: Sequence[str], *, server_major: int | None, in_transaction: bool) -> list[Remark]:
    """What squawk finds in the scripts by all of its default rules, in the order of the scripts and their lines.

    A ``.squawk.toml`` is not read; squawk's own comments in a script hold. Raises ``LintCouldNotRun`` when the program
    is missing or does not answer.
    """
    if not scripts:
        return []
    texts = [script.replace("\r\n", "\n").replace("\r", "\n") for script in scripts]
    with tempfile.TemporaryDirectory(prefix="dbplatform_lint_") as folder:
        names = [f"{number}.sql" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            Path(folder, name).write_text(text, encoding="utf-8", newline="")
        Path(folder, "no.toml").touch()
        options = ["--config", "no.toml", "--reporter", "json", "--pg-version", f"{server_major or NEWEST}.0"]
        if in_transaction:
            options.append("--assume-in-transaction")
        found = _run([*options, *names], folder)
    lines = [text.split("\n") for text in texts]
    return [_remark(raw, lines) for raw in found]


def _run(arguments: list[str], folder: str) -> list[dict[str, str | int | None]]:
    squawk = program()
    try:
        done = subprocess.run(
            [squawk, *arguments], cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LintCouldNotRun(f"{squawk} did not run: {error}.", hint=_HINT) from error
    try:
        # Exit code 1 says that something was found, or that it failed: only the document tells.
        found = json.loads(done.stdout)
    except ValueError as error:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LintCouldNotRun(
            f"{squawk} gave no list of findings (exit code {done.returncode}): "
            f"{said[0] if said else 'it said nothing'}.",
            hint=_HINT,
        ) from error
    return list(found)


_HINT = "Install it beside dbplatform: pip install 'squawk-cli>=2.70' (Linux with glibc, macOS)."


def program() -> str:
    """Where the program is; raises ``LintCouldNotRun``."""
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which("squawk", path=os.pathsep.join(folders))
    if found is None:
        raise LintCouldNotRun("The program squawk is missing, so that nothing can be linted.", hint=_HINT)
    return found


def _remark(raw: dict[str, str | int | None], lines: list[list[str]]) -> Remark:
    script, line = int(str(raw["file"]).removesuffix(".sql")), int(raw["line"] or 0)
    # Squawk counts lines and bytes from 0; the end of a script may lie behind its last line.
    text = lines[script][line] if line < len(lines[script]) else ""
    before = text.encode()[: int(raw["column"] or 0)].decode(errors="replace")
    return Remark(
        script=script,
        line=line + 1,
        column=len(before) + 1,
        level=str(raw["level"]).lower(),
        rule=str(raw["rule_name"]),
        message=str(raw["message"]),
        help=str(raw["help"]) if raw["help"] else None,
    )
