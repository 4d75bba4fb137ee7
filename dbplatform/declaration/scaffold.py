"""The first files of a declared database, and of a project around it: from ``templates/`` beside this module.

What is written here loads and runs as it is. A template's name ends in ``.j2`` where its file would be taken for one of
this repository's own.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from dbplatform.declaration.database import ConnectionPolicy, Database
from dbplatform.declaration.loading import load_project
from dbplatform.declaration.project import Project
from dbplatform.errors import UsageError, WorkError

_DEFS = "defs"


class NameNotValid(UsageError):
    """{name!r} cannot be the name of a database: {reason}."""


class NotAVariable(UsageError):
    """--url-env takes the name of an environment variable, not what it holds."""


class WouldOverwrite(UsageError):
    """{folder} already holds {names}: nothing was written."""


class NotAFolder(UsageError):
    """{folder} is a file: a project is a folder."""


class CannotWrite(WorkError):
    """The project cannot be written into {folder}: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPlan:
    """The files of a new project, by their path below its folder."""

    folder: Path
    database: str
    url_env: str | None
    files: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The document of ``init --json``."""
        return {
            "project": str(self.folder),
            "database": self.database,
            "url_env": self.url_env,
            "files": list(self.files),
        }


def plan_project(folder: Path, *, name: str | None = None, url_env: str | None = None) -> ProjectPlan:
    """What ``write_project`` would write; only reads.

    The database is named as the folder where ``name`` is not given. With ``url_env`` it lies on a server of the user's
    own: no seeds, no archive, ``production``. Raises ``NameNotValid``, ``NotAVariable``, ``NotAFolder``,
    ``WouldOverwrite``.
    """
    folder = folder.resolve()
    _refuse_variable(url_env)
    database = database_name(folder.name) if name is None else name
    _refuse_name(database, url_env)
    files = {
        **_rendered("project", name=database, url_env=url_env),
        **{f"{_DEFS}/{database}/{path}": text for path, text in database_files(database, url_env=url_env).items()},
    }
    plan = ProjectPlan(folder=folder, database=database, url_env=url_env, files=files)
    _refuse_existing(plan)
    return plan


def write_project(plan: ProjectPlan) -> None:
    """Write the files of a plan, all or none.

    They are written into a folder beside their places, loaded as any project is, then moved: ``defs`` last, because
    a folder is a project as soon as it has that. Raises what ``plan_project`` raises, and ``CannotWrite``.
    """
    try:
        with _staging(plan.folder) as staging:
            _write(staging, plan.files)
            for broken in load_project(Project.at(staging)).broken:
                raise broken.error
            _refuse_existing(plan)
            _move(plan, staging)
    except OSError as error:
        raise CannotWrite(
            folder=plan.folder, reason=error.strerror or str(error), hint="Choose a folder that you may write to."
        ) from error


def database_files(name: str, *, url_env: str | None = None) -> dict[str, str]:
    """The files of one declared database by their path in its folder; without seeds where it is the user's own."""
    files = _rendered("database", name=name, url_env=url_env)
    return {path: text for path, text in files.items() if url_env is None or not path.startswith("seeds/")}


def refuse_declared(project: Project, name: str) -> None:
    """Raise ``WouldOverwrite`` where a database of that name is declared, or its folder is there."""
    found = load_project(project)
    names = {declared.name: declared.folder for declared in found.databases}
    names |= {broken.name: project.defs / broken.folder for broken in found.broken if broken.name}
    folder = names.get(name, project.defs / name)
    if name in names or folder.exists():
        hint = "Choose another name, or move that folder away."
        raise WouldOverwrite(folder=project.shown(project.defs), names=folder.name, hint=hint)


def refuse_unloadable(name: str, files: Mapping[str, str]) -> None:
    """Load the files as a declaration, apart from every other one; raises its first mistake."""
    with tempfile.TemporaryDirectory(prefix="dbplatform-declaration-") as folder:
        _write(Path(folder) / _DEFS / name, files)
        for broken in load_project(Project.at(Path(folder))).broken:
            raise broken.error


def write_declaration(project: Project, name: str, files: Mapping[str, str]) -> None:
    """Write the folder of one more database, all of it or nothing.

    Raises ``WouldOverwrite`` and ``CannotWrite``.
    """
    try:
        with _staging(project.root) as staging:
            _write(staging / name, files)
            refuse_declared(project, name)
            (staging / name).rename(project.defs / name)
    except OSError as error:
        raise CannotWrite(
            folder=project.defs, reason=error.strerror or str(error), hint="Choose a project that you may write to."
        ) from error


def refuse_name(name: str, url_env: str | None) -> None:
    """Raise ``NotAVariable`` or ``NameNotValid`` for what a declaration cannot hold."""
    _refuse_variable(url_env)
    _refuse_name(name, url_env)


def database_name(words: str) -> str:
    """A valid name as near as possible to what a folder is called; raises ``NameNotValid``."""
    name = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
    name = name.lstrip("_0123456789")[:48].rstrip("_")
    if not name:
        raise NameNotValid(name=words, reason="it has no letter from a to z", hint="Choose a name by --name.")
    return name


def _refuse_variable(url_env: str | None) -> None:
    if url_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", url_env):
        # Not shown: it may be the URL itself, with its password.
        raise NotAVariable(hint="Write it as --url-env SHOP_URL, and put the URL into that variable.")


def _refuse_name(name: str, url_env: str | None) -> None:
    try:
        Database(name=name, connection=ConnectionPolicy(url_env=url_env))
    except ValidationError as error:
        [mistake, *_] = error.errors(include_url=False)
        reason = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "string_pattern_mismatch":
            reason = "it begins with a letter and has lower case letters, digits and underscores, at most 48"
        raise NameNotValid(name=name, reason=reason, hint="Choose a name by --name.") from error


def _refuse_existing(plan: ProjectPlan) -> None:
    if plan.folder.exists() and not plan.folder.is_dir():
        raise NotAFolder(folder=plan.folder, hint="Name another folder.")
    taken = [name for name in _top(plan) if (plan.folder / name).exists()]
    if taken:
        new = f"Move them away, or name a new folder, such as {plan.folder / 'databases'}"
        again = f"It is a project already: dbplatform -C {plan.folder} list"
        raise WouldOverwrite(folder=plan.folder, names=", ".join(taken), hint=f"{again if _DEFS in taken else new}.")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _top(plan: ProjectPlan) -> list[str]:
    """What the plan puts directly into the folder, ``defs`` last."""
    return sorted({path.split("/")[0] for path in plan.files}, key=lambda name: (name == _DEFS, name))


def _move(plan: ProjectPlan, staging: Path) -> None:
    moved: list[str] = []
    try:
        for name in _top(plan):
            (staging / name).rename(plan.folder / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            (plan.folder / name).rename(staging / name)
        raise


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder inside ``folder``, gone at the end; ``folder`` itself too, where it was made here and stayed empty."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".init-", dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if made:
            with suppress(OSError):
                folder.rmdir()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("dbplatform.declaration"),
        autoescape=False,  # SQL and YAML, no HTML; the name is checked
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _rendered(kind: str, **values: str | None) -> dict[str, str]:
    """Every template below ``templates/<kind>/``, by the path of its file."""
    return {
        template.removeprefix(f"{kind}/").removesuffix(".j2"): _environment().get_template(template).render(values)
        for template in _environment().list_templates()
        if template.startswith(f"{kind}/")
    }
