"""Tablespaces: their files come into the copied data directory, so that a recovery goes nowhere else.

pg_basebackup writes each into a folder of ours, which is then moved to where its link was. A server takes such folders
as tablespaces in place (``allow_in_place_tablespaces``; manual: "Developer Options"), and the paths of the source,
where the live server may work on this very host, are never touched.

Replaying the creation of a tablespace would touch them: it links to its path. So all WAL is looked through before a
recovery gets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dbplatform.backups.physical.errors import WalNotLookedThrough
from dbplatform.backups.physical.wal import lsn_words
from dbplatform.postgres.client_programs import ProgramFailed, run

#: Below the data directory: a link, or in place a folder, for each, by its OID.
LINKS = "pg_tblspc"
#: Lets a server start whose tablespaces are in place.
IN_PLACE = "allow_in_place_tablespaces"
_CREATE = re.compile(rb'lsn: ([0-9A-F]+/[0-9A-F]+), prev [0-9A-F/]+, desc: CREATE \d+ "(.+)"')
#: What pg_waldump says where the WAL that it has ends, or cannot be read on; a recovery comes no further.
_AT_ITS_END = ("could not find a valid record after", "error in WAL record at", "could not find file")
_NO_MEMORY = "out of memory"


@dataclass(frozen=True, slots=True)
class Created:
    """A tablespace that WAL creates."""

    lsn: str
    location: str


def mappings(locations: Mapping[int, str], folder: Path) -> Iterator[str]:
    """What pg_basebackup is told, so that it writes each tablespace into ``folder/<its OID>``."""
    for oid, location in locations.items():
        old, new = (path.replace("=", "\\=") for path in (location, str(folder / str(oid))))
        yield f"--tablespace-mapping={old}={new}"


def bring_in(data: Path, folder: Path) -> tuple[Path, ...]:
    """Put the tablespaces from ``folder`` in the place of the links to them.

    Returns what other links lead to: a tablespace that was created too late to be mapped, and was written there.
    """
    strangers = []
    for link in sorted((data / LINKS).iterdir()):
        if link.is_symlink():
            target = link.readlink()
            if target == folder / link.name:
                link.unlink()
                target.rename(link)
            else:
                strangers.append(target)
    return tuple(strangers)


def are_in_place(data: Path) -> bool:
    """Whether the data directory has tablespaces."""
    return any((data / LINKS).iterdir())


def created_in(wal: Path, waldump: Path, *, timeline: int, start: int, end: int) -> Created | None:
    """The first tablespace that the WAL in the folder ``wal`` creates in a place of its own, from ``start`` to ``end``.

    A record that begins there and does not end in the folder is not seen: nobody can replay it yet. Raises
    ``WalNotLookedThrough`` where pg_waldump ended for another reason than the end of the WAL.
    """
    said: list[bytes] = []
    where = [f"--path={wal}", f"--timeline={timeline}", f"--start={lsn_words(start)}", f"--end={lsn_words(end)}"]
    try:
        run([waldump, "--rmgr=Tablespace", *where], output=said.append, tolerated=_is_at_its_end)
    except ProgramFailed as error:
        raise WalNotLookedThrough(
            lsn=lsn_words(start), reason=error, hint="Mend the cause, and run it again: nothing was changed."
        ) from error
    found = _CREATE.search(b"".join(said))
    return Created(found[1].decode(), found[2].decode(errors="replace")) if found else None


def _is_at_its_end(line: str) -> bool:
    return any(words in line for words in _AT_ITS_END) and _NO_MEMORY not in line
