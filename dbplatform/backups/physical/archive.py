"""The archive of one server's WAL: every file whole, under a name that tells its content.

A file lies in a store as ``<name>-<SHA-256 of its content>.zst``, with ``.age`` behind it where it is encrypted. So it
is checked whenever it is read, a second file of the same name is noticed, and the names alone tell what there is:
nothing else has to be kept.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dbplatform.backups.keys import IDENTITY_FILE, given_keys
from dbplatform.backups.manifest import SEALED, sum_file
from dbplatform.backups.physical.errors import WalConflict, WalDamaged, WalKeyMissing
from dbplatform.backups.physical.packing import Unpackable, compress, expand
from dbplatform.backups.physical.wal import FINISHED, HISTORY, Timeline, timelines
from dbplatform.backups.sealing import NoMatchingKey, copy_out, seal_files
from dbplatform.storage.store import Store

_OBJECT = re.compile(rf"(?P<name>{FINISHED.pattern})-(?P<sha256>[0-9a-f]{{64}})\.zst(?P<sealed>{re.escape(SEALED)})?")


@dataclass(frozen=True, slots=True)
class WalFile:
    """One archived file; the same content is the same file, encrypted or not."""

    name: str
    sha256: str
    sealed: bool = field(default=False, compare=False)

    @property
    def object(self) -> str:
        """What it is called in the store."""
        return f"{self.name}-{self.sha256}.zst{SEALED if self.sealed else ''}"


@dataclass(frozen=True, slots=True)
class WalArchive:
    """The WAL of one server; ``system`` is its system identifier."""

    system: str
    store: Store
    encrypt_to: Sequence[str] = ()
    """age recipients of what is added. The histories of timelines tell nothing of the data, and stay readable."""

    def files(self) -> dict[str, WalFile]:
        """What there is, by name. Raises ``WalConflict`` where two differ under one name."""
        found: dict[str, WalFile] = {}
        for stored in self.store.files():
            if match := _OBJECT.fullmatch(stored.name):
                file = WalFile(match["name"], match["sha256"], sealed=bool(match["sealed"]))
                if found.setdefault(file.name, file) != file:
                    raise self._conflict(file.name)
        return found

    def add(self, path: Path, known: dict[str, WalFile]) -> bool:
        """Archive a finished WAL file, unless it is ``known``; whether it is new. Raises ``WalConflict``."""
        sealed = bool(self.encrypt_to) and not HISTORY.fullmatch(path.name)
        file = WalFile(path.name, sum_file(path), sealed)
        if file.name in known:
            if known[file.name] != file:
                raise self._conflict(file.name)
            return False
        with tempfile.TemporaryDirectory(prefix="dbplatform-wal-") as folder:
            packed = Path(folder) / "packed" / "file"
            packed.parent.mkdir()
            compress(path, packed)
            if sealed:
                seal_files(packed.parent, self.encrypt_to, task=f"encrypt {path.name}")
                packed = packed.with_name(packed.name + SEALED)
            self.store.put(file.object, packed, sha256=sum_file(packed))
        known[file.name] = file
        return True

    def fetch(self, file: WalFile, to: Path) -> None:
        """Write an archived file into the new file ``to``, decrypted by the given keys.

        Raises ``WalDamaged`` where it is not what was archived, ``WalKeyMissing`` or ``StorageFailed``.
        """
        keys = given_keys() if file.sealed else None
        if file.sealed and keys is None:
            raise WalKeyMissing(name=file.name, hint=f"Let {IDENTITY_FILE} name the file of the key.")
        with tempfile.TemporaryDirectory(prefix="dbplatform-wal-") as folder:
            packed = Path(folder) / "packed"
            try:
                with self.store.reading(file.object) as stream, packed.open("xb") as kept:
                    _, _, failure = copy_out(stream, kept, keys)
                if isinstance(failure, NoMatchingKey):
                    raise WalKeyMissing(name=file.name, hint=f"Name the file with the right key in {IDENTITY_FILE}.")
                if failure is not None:
                    raise _damaged(file, "it cannot be decrypted")
                expand(packed, to)
            except FileNotFoundError as error:
                raise _damaged(file, "it is missing") from error
            except Unpackable as error:
                raise _damaged(file, str(error)) from error
        if sum_file(to) != file.sha256:
            to.unlink()
            raise _damaged(file, "it has another SHA-256")

    def timelines(self, files: dict[str, WalFile], *, also: Iterable[int] = ()) -> tuple[Timeline, ...]:
        """The ways to all timelines that the archive knows, the newest first. Reads the history files."""
        texts = {}
        with tempfile.TemporaryDirectory(prefix="dbplatform-wal-") as folder:
            for name, file in files.items():
                if HISTORY.fullmatch(name):
                    to = Path(folder) / name
                    self.fetch(file, to)
                    texts[int(name[:8], 16)] = to.read_text()
        return timelines(texts, also=also)

    def _conflict(self, name: str) -> WalConflict:
        return WalConflict(
            name=name,
            system=self.system,
            hint="A copy of the server that archives to the same place must have its archive_command taken away.",
        )


def _damaged(file: WalFile, reason: str) -> WalDamaged:
    return WalDamaged(
        name=file.name,
        reason=reason,
        hint="Take a base backup now; moments behind that file cannot be reached from the backups before it.",
    )
