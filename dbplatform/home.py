"""Where the platform writes: the folders below ``DBPLATFORM_HOME``.

Only paths live here. Who fills a folder also creates it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The folders of one project; everything written by default lies under ``root``."""

    root: Path

    @classmethod
    def of(cls, project: Path) -> Home:
        """The home of a project: ``DBPLATFORM_HOME``, by default ``PROJECT/.dbplatform``."""
        declared = os.environ.get("DBPLATFORM_HOME")
        return cls(root=Path(declared).absolute() if declared else project.absolute() / ".dbplatform")

    @property
    def server(self) -> Path:
        """The embedded PostgreSQL: its data, log, socket and password."""
        return self.root / "server"

    @property
    def dagster(self) -> Path:
        """``DAGSTER_HOME``."""
        return self.root / "dagster"

    @property
    def reports(self) -> Path:
        """The HTML reports, one folder per database."""
        return self.root / "reports"

    @property
    def backups(self) -> Path:
        """The backups, one folder per database, where no other destination is declared."""
        return self.root / "backups"

    @property
    def archives(self) -> Path:
        """The archives, one folder per database, where no other folder is declared."""
        return self.root / "archives"

    @property
    def wal(self) -> Path:
        """Received WAL on its way into the archive, one folder per server."""
        return self.root / "wal"

    @property
    def recoveries(self) -> Path:
        """Servers that are being recovered, until their end."""
        return self.root / "recoveries"
