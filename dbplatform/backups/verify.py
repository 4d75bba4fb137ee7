"""Looks whether a backup can still be read: every file against the manifest, then all data through pg_restore.

``pg_restore --list`` reads the table of contents alone and is content with a data file of rubbish; here everything is
read. That still is no proof: only a drill is. Of an encrypted backup without its key the files are compared as they are
stored, and the report says that nobody looked inside.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, load_manifest, mark_damaged, reading
from dbplatform.backups.destination import default_work
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.files import Problem, check_files, unpacked
from dbplatform.backups.kept import drop_proof
from dbplatform.backups.keys import given_keys
from dbplatform.backups.manifest import DUMP, MANIFEST, SEALED, Manifest
from dbplatform.backups.programs import restore_program
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import ProgramFailed, run
from dbplatform.postgres.programs import Programs

_END_OF_TABLE = b"\n\\.\n"
_DATA_FILE = re.compile(rf"({DUMP}/(\d+)\.dat(?:\.\w+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found; ``passed`` when nothing is wrong."""

    backup_id: str
    files: int
    bytes: int
    problems: tuple[Problem, ...]
    inside: bool = True
    """Whether the data was read, too: not where it is encrypted and no key is given."""

    @property
    def passed(self) -> bool:
        """Whether every file is what was written, and pg_restore could read all that could be looked into."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The document of ``backup verify --json``."""
        return {
            "backup_id": self.backup_id,
            "passed": self.passed,
            "files": self.files,
            "bytes": self.bytes,
            "inside": self.inside,
            "problems": [{"file": problem.file, "problem": problem.what} for problem in self.problems],
        }


def verify_backup(
    backup: Backup,
    ledger: Ledger,
    *,
    programs: Programs,
    work: Path | None = None,
    poll: Callable[[], None] = lambda: None,
) -> Verification:
    """Read a complete backup from end to end; a damaged one is marked so in the ledger, and unproven from then on.

    Changes no file of it; what is not plain in a folder is unpacked below ``work`` meanwhile. Reports the facts
    ``verify <database>: files, data``. Raises ``BackupUnreadable``, ``StorageFailed``, ``BackupInUse``,
    ``NoFittingProgram``, ``KeyUnreadable`` or ``WrongKey`` where it could not look.
    """
    with reading(ledger, backup):
        verification = _read(backup, programs, work or default_work(), poll)
        if not verification.passed:
            mark_damaged(ledger, backup.id, [str(problem) for problem in verification.problems])
            drop_proof(backup)
    return verification


def _read(backup: Backup, programs: Programs, work: Path, poll: Callable[[], None]) -> Verification:
    try:
        manifest = load_manifest(backup)
    except BackupDamaged as error:
        problem = Problem(file=MANIFEST, what=str(error.fields["problems"]).removeprefix(f"{MANIFEST} "))
        return Verification(backup_id=backup.id, files=0, bytes=0, problems=(problem,))
    problems = check_files(backup, manifest)
    inside = not manifest.sealed or given_keys() is not None
    if not problems and inside:
        _step(backup, "files")
        with unpacked(backup, manifest, work=work, compared=True) as folder:
            problems = _unreadable_data(folder / DUMP, manifest, programs, poll)
        _step(backup, "data")
    return Verification(
        backup_id=backup.id,
        files=len(manifest.files) + 1,
        bytes=manifest.bytes,
        problems=problems,
        inside=inside,
    )


def _unreadable_data(
    dump: Path, manifest: Manifest, programs: Programs, poll: Callable[[], None]
) -> tuple[Problem, ...]:
    """What pg_restore cannot read although the files are as they were written; each data file then by itself."""
    program = restore_program(programs, dump_major=manifest.program_major).path("pg_restore")
    names = [file.name.removesuffix(SEALED) if manifest.sealed else file.name for file in manifest.files]
    numbers = {match[2]: match[1] for name in names if (match := _DATA_FILE.fullmatch(name))}
    try:
        run([program, "--section=pre-data", "--section=post-data", "--file=/dev/null", dump], poll=poll)
        ended = _read_data(program, dump, poll)
        if ended == len(numbers):
            return ()
        words = f"holds {ended} tables to their end, not {len(numbers)}"
    except ProgramFailed as error:
        words = f"cannot be read by pg_restore: {error}"
    problems = []
    with tempfile.NamedTemporaryFile("w", suffix=".list") as entry:
        for number, name in numbers.items():
            Path(entry.name).write_text(f"{number};\n")
            try:
                if _read_data(program, dump, poll, f"--use-list={entry.name}") != 1:
                    problems.append(Problem(file=name, what="ends too early, says pg_restore"))
            except ProgramFailed as error:
                problems.append(Problem(file=name, what=f"cannot be read by pg_restore: {error}"))
    return tuple(problems) or (Problem(file=DUMP, what=words),)


def _read_data(program: Path, dump: Path, poll: Callable[[], None], *options: str) -> int:
    """Let pg_restore unpack the data; how many tables it read to their end.

    The end mark is looked for because pg_restore does not notice a zstd file that was cut short (seen with 17.10). In
    COPY's text form a line of backslash and point can be nothing else.
    """
    ended = 0
    tail = b""

    def look(piece: bytes) -> None:
        nonlocal ended, tail
        text = tail + piece
        ended += text.count(_END_OF_TABLE)
        # An end mark that is not whole yet is found with the next piece; one that was counted is not counted again.
        tail = text[-len(_END_OF_TABLE) + 1 :]

    run([program, "--section=data", "--file=-", *options, dump], poll=poll, output=look)
    return ended


def _step(backup: Backup, fact: str) -> None:
    progress.report(f"verify {backup.database}: {fact}", done=1, total=1, unit="step")
