"""Hands the WAL to a recovering server, segment by segment, from wherever the archive is.

The server's ``restore_command`` is a small shell program that asks by a file in ``wanted`` and waits. This process,
which has the right to read the archive, answers by a file in ``ready``, checked against its SHA-256, and keeps the next
few there beforehand; so that the disk holds no more than those. What the recovery shall not see is in ``none``. WAL
that creates a tablespace is not handed out (see ``tablespaces``).
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from dbplatform import progress
from dbplatform.backups.physical.archive import WalArchive, WalFile
from dbplatform.backups.physical.errors import TablespaceCreated
from dbplatform.backups.physical.tablespaces import Created, created_in
from dbplatform.backups.physical.wal import Segments
from dbplatform.postgres.embedded.account import Account

#: How many segments lie ready before they are asked for.
AHEAD = 4

# The program ends with the process that called it: a killed recovery leaves nothing that waits.
_SCRIPT = """\
#!/bin/sh
# restore_command of a recovery: NAME PATH. Asks for a WAL file and waits until it is there, or is known to be none.
name=$1 to=$2 here=$(dirname "$0")
: > "$here/wanted/$name"
while kill -0 $PPID 2> /dev/null; do
    if [ -e "$here/ready/$name" ]; then
        rm -f "$here/wanted/$name"
        mv "$here/ready/$name" "$to"
        exit
    fi
    [ -e "$here/none/$name" ] && exit 1
    sleep 0.02
done
exit 1
"""


@dataclass(slots=True)
class Feed:
    """The WAL files of one recovery; ``folder`` is made, and belongs to the server's ``account``."""

    folder: Path
    account: Account
    archive: WalArchive
    wal: tuple[WalFile, ...]
    """In the order in which they will be asked for."""
    others: tuple[WalFile, ...]
    """Histories of timelines."""
    task: str
    waldump: Path
    segments: Segments
    refusal: TablespaceCreated | None = field(init=False, default=None)
    """Why the recovery was not given WAL that it asked for."""
    _created: dict[str, Created] = field(init=False, default_factory=dict)
    """By the names of the segments that are not handed out."""
    _files: dict[str, WalFile] = field(init=False)
    _order: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._files = {file.name: file for file in (*self.wal, *self.others)}
        self._order = {file.name: index for index, file in enumerate(self.wal)}

    @property
    def command(self) -> str:
        """The ``restore_command``."""
        return f"sh {shlex.quote(str(self.folder / 'fetch.sh'))}".replace("%", "%%") + ' "%f" "%p"'

    def make(self) -> None:
        """The folders and the program; once."""
        for folder in (self.folder, *(self.folder / name for name in ("wanted", "ready", "none", "looked"))):
            self.account.make_folder(folder)
        script = self.folder / "fetch.sh"
        script.write_text(_SCRIPT)
        script.chmod(0o500)
        self.account.own(script)

    def begin(self) -> None:
        """Forget what was asked for, and refused, before: the server begins anew."""
        self.refusal = None
        for wanted in (self.folder / "wanted").iterdir():
            wanted.unlink()

    def serve(self) -> None:
        """Answer what is asked for now, then bring the next few.

        What creates a tablespace is answered as if it were missing. Raises ``WalDamaged``, ``WalNotLookedThrough`` and
        ``StorageFailed``.
        """
        for wanted in list((self.folder / "wanted").iterdir()):
            name = wanted.name
            if name in self._files:
                self._bring(name)
            if name in self._created:
                # The server may only read ahead: it comes to its target, or ends because this is missing.
                self.refusal = _refused(self._created[name])
            if name not in self._files or name in self._created:
                (self.folder / "none" / name).touch()
            if name in self._order:
                at = self._order[name]
                progress.report(self.task, done=at, total=len(self.wal), unit="WAL files")
                for file in self.wal[at + 1 : at + 1 + AHEAD]:
                    self._bring(file.name)

    def _bring(self, name: str) -> None:
        ready = self.folder / "ready" / name
        if ready.exists() or name in self._created:
            return
        part = self.folder / f"{name}.part"
        part.unlink(missing_ok=True)
        self.archive.fetch(self._files[name], part)
        if name in self._order and (created := self._creates(name, part)):
            self._created[name] = created
            return
        self.account.own(part)
        part.rename(ready)

    def _creates(self, name: str, segment: Path) -> Created | None:
        """The tablespace that a segment creates, or the end of the one before it together with its beginning."""
        looked, at = self.folder / "looked", self._order[name]
        timeline, number = self.segments.parse(name)
        shutil.copyfile(segment, looked / name)
        start = self.segments.start(number)
        if at > 0:
            # By a name of this timeline: it may be the first one of it.
            before = looked / self.segments.name(timeline, number - 1)
            if not before.exists():
                self.archive.fetch(self.wal[at - 1], before)
            start = self.segments.start(number - 1)
        try:
            end = self.segments.start(number + 1)
            return created_in(looked, self.waldump, timeline=timeline, start=start, end=end)
        finally:
            for path in looked.iterdir():
                if path.name != name:
                    path.unlink()


def _refused(created: Created) -> TablespaceCreated:
    return TablespaceCreated(
        lsn=created.lsn,
        location=created.location,
        hint="Choose a moment before it; or take a base backup now: behind that every moment can be restored.",
    )
