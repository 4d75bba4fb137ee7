"""Where declarations lie: a project is a folder that holds ``defs/``, one folder per database below it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbplatform.errors import UsageError
from dbplatform.home import Home

PACKAGE = Path(__file__).parents[1]


class NoProject(UsageError):
    """There is no project at {place}: a project is a folder that holds defs/."""


@dataclass(frozen=True, slots=True)
class Project:
    """One project: its root folder, and the folder of its declarations."""

    root: Path
    defs: Path

    @classmethod
    def at(cls, folder: Path) -> Project:
        """The project in exactly this folder; raises ``NoProject``."""
        project = cls._in(folder.absolute())
        if project is None:
            raise NoProject(place=folder, hint="Name the folder that holds defs/ by -C.")
        return project

    @classmethod
    def find(cls, start: Path) -> Project:
        """The nearest project from ``start`` upwards, else this repository's own; raises ``NoProject``."""
        for folder in (start.absolute(), *start.absolute().parents, PACKAGE.parent):
            project = cls._in(folder)
            if project is not None:
                return project
        raise NoProject(place=start, hint="Name a project by -C, or make one: dbplatform init DIR")

    @classmethod
    def _in(cls, folder: Path) -> Project | None:
        if (folder / "defs").is_dir() and folder != PACKAGE:
            return cls(folder, folder / "defs")
        own = folder / PACKAGE.name / "defs"
        if own.is_dir() and own == PACKAGE / "defs":
            return cls(folder, own)
        return None

    @property
    def dev_command(self) -> str:
        """What starts the UI: in this repository ``make dev``, which needs nothing on the PATH."""
        return "make dev" if self.defs == PACKAGE / "defs" else "dbplatform dev"

    @property
    def home(self) -> Home:
        """Where this project's platform writes."""
        return Home.of(self.root)

    def shown(self, path: Path) -> str:
        """A path as a person in the project's root would write it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
