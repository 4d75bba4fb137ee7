"""A run of migrations in a process of its own, killed where a test says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from dbplatform.postgres.connection import Target

_VICTIM = """
import os, signal, sys
from pathlib import Path
from dbplatform import progress
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations
from dbplatform.postgres.connection import Target, connect

def die(fact):
    if fact.task == sys.argv[3] and fact.done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

with connect(Target("victim", sys.argv[1]), work="victim") as connection, progress.listening(die):
    apply_migrations(connection, Path(sys.argv[2]), MigrationPolicy())
"""


def apply_and_die(database: Target, files: Path, task: str, done: int) -> None:
    """Apply in a process that ends itself by SIGKILL when ``task`` has reached ``done``."""
    victim = subprocess.run(
        [sys.executable, "-c", _VICTIM, database.url, str(files), task, str(done)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert victim.returncode == -signal.SIGKILL, f"the point was not reached: {victim.stderr}"
