"""The log folder of the embedded server: the newest file, what was said since a moment, and its bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_KEPT_FILES = 5
_TAIL_LINES = 12
_END_BYTES = 8192


@dataclass(frozen=True, slots=True)
class LogFolder:
    """``startup.log`` holds the server's words until its own log begins; then ``postgresql-<time>.log``."""

    path: Path

    @property
    def startup(self) -> Path:
        return self.path / "startup.log"

    def newest(self) -> Path | None:
        """The log that the server writes now, or wrote last."""
        logs = self._logs()
        return logs[-1] if logs else None

    def sizes(self) -> Mapping[Path, int]:
        """A moment of the log, to ask ``since`` with."""
        return {file: file.stat().st_size for file in self._files()}

    def since(self, sizes: Mapping[Path, int]) -> str:
        """What was written after the moment of ``sizes``."""
        return "".join(_read(file, sizes.get(file, 0)) for file in self._files())

    def end(self) -> str:
        """The last words of the newest log."""
        newest = self.newest()
        if newest is None:
            return ""
        return _read(newest, max(0, newest.stat().st_size - _END_BYTES))

    def prune(self) -> None:
        """Keep the newest five files (10 MB each at most)."""
        for file in self._logs()[:-_KEPT_FILES]:
            file.unlink(missing_ok=True)

    def _logs(self) -> list[Path]:
        return sorted(self.path.glob("postgresql-*.log"))

    def _files(self) -> list[Path]:
        return [file for file in (self.startup, *self._logs()) if file.is_file()]


def _read(file: Path, offset: int) -> str:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read().decode(errors="replace")


def tail(text: str) -> str:
    """The last lines, indented for an error message."""
    lines = text.strip().splitlines()[-_TAIL_LINES:]
    return "".join(f"\n    {line}" for line in lines) or " nothing"
