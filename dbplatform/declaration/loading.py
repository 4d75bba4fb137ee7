"""From ``defs/<database>/defs.yaml`` to declared databases; every mistake is one sentence with file and line.

One broken declaration hides no other: a project is loaded into those that hold and the errors of those that do not.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dbplatform.declaration.database import JOBS, Database
from dbplatform.declaration.project import Project
from dbplatform.errors import PlatformError, UnknownDatabase, UsageError, VariableNotSet
from dbplatform.postgres.transport import demand_verified
from dbplatform.yaml_files import LinedDocument, Where

TYPE = "dbplatform.ManagedDatabase"
FILE = "defs.yaml"
_TOP_KEYS = {"type", "attributes"}


class OwnsNothing(UsageError):
    """No declared database belongs to {owner}."""


@dataclass(frozen=True)
class Declared:
    """A declared database, its folder, and where each of its values was written."""

    database: Database
    folder: Path
    document: LinedDocument

    @property
    def name(self) -> str:
        return self.database.name

    def url_from_environment(self) -> str | None:
        """The URL in the declared variable; None for a database on the embedded server.

        Raises ``VariableNotSet`` with the line that names the variable, and of a database in production
        ``TlsNotVerified``; so do the others.
        """
        return self._url("url_env", self.database.connection.url_env, f"holds the URL of the database {self.name}")

    def scratch_url_from_environment(self) -> str | None:
        """The URL of the server for scratch databases; None where none is declared. Raises ``VariableNotSet``."""
        variable = self.database.connection.scratch_url_env
        return self._url("scratch_url_env", variable, f"holds the URL of the scratch server of {self.name}")

    def replica_url_from_environment(self) -> str | None:
        """The URL of the streaming replica; None where none is declared. Raises ``VariableNotSet``."""
        variable = self.database.connection.replica_url_env
        return self._url("replica_url_env", variable, f"holds the URL of the replica of {self.name}")

    def pgbouncer_url_from_environment(self) -> str | None:
        """The URL of the pooler's administration console; None where none is declared. Raises ``VariableNotSet``."""
        variable = self.database.connection.pgbouncer_url_env
        return self._url("pgbouncer_url_env", variable, f"holds the URL of the pooler of {self.name}")

    def _url(self, key: str, variable: str | None, purpose: str) -> str | None:
        if variable is None:
            return None
        url = os.environ.get(variable)
        if not url:
            raise VariableNotSet(
                variable=variable,
                purpose=purpose,
                hint=f"export {variable}=postgresql://user:password@host:port/database",
                file=self.document.shown,
                line=self.document.line_of(("attributes", "connection", key)),
            )
        if self.database.connection.environment == "production":
            with self.written_at("connection", key):
                demand_verified(url, variable=variable)
        return url

    @contextmanager
    def written_at(self, *where: str | int) -> Iterator[None]:
        """Give a user's mistake found in the block the file and line of what was declared there."""
        try:
            yield
        except UsageError as error:
            if error.file is None:
                error.file, error.line = self.document.shown, self.document.line_of(("attributes", *where))
            raise


@dataclass(frozen=True, slots=True)
class Broken:
    """A declaration that does not hold: its folder's name, the database's name as far as it can be read, and why."""

    folder: str
    name: str | None
    error: PlatformError


@dataclass(frozen=True)
class Declarations:
    """All of a project: the databases that hold, in the order of their names, and the errors of the others."""

    project: Project
    databases: tuple[Declared, ...]
    broken: tuple[Broken, ...]

    @cached_property
    def by_name(self) -> dict[str, Declared]:
        return {declared.name: declared for declared in self.databases}

    def chosen(self, *, owner: str | None = None, without: Collection[str] = ()) -> tuple[Declared, ...]:
        """All of them, or those of an owner (``team:data``, or ``data`` alone), but for those ``without``.

        Raises ``OwnsNothing``, and ``UnknownDatabase`` for a name in ``without``; one that is broken may be left out.
        """
        known = {*self.by_name, *(name for broken in self.broken for name in (broken.folder, broken.name))}
        for name in set(without) - known:
            self.get(name)
        owned = self.databases
        if owner is not None:
            owned = tuple(one for one in owned if {owner, f"team:{owner}"} & set(one.database.owners))
            if not owned:
                owners = sorted({name for one in self.databases for name in one.database.owners})
                raise OwnsNothing(owner=owner, hint=f"Owners are: {', '.join(owners) or 'none'}.")
        return tuple(one for one in owned if one.name not in without)

    def get(self, name: str) -> Declared:
        """The database of that name; raises its own error where its declaration is broken, or ``UnknownDatabase``."""
        if name in self.by_name:
            return self.by_name[name]
        for broken in self.broken:
            if name in (broken.folder, broken.name):
                raise broken.error
        near = difflib.get_close_matches(name, self.by_name, n=1)
        names = ", ".join(self.by_name) or "none"
        raise UnknownDatabase(
            name=name,
            project=self.project.root,
            hint=f"Did you mean {near[0]}?" if near else f"Declared are: {names}.",
        )


def load_project(project: Project) -> Declarations:
    """Read every ``defs.yaml`` of our type below ``defs/``; those of other types belong to Dagster."""
    return _load(project, sorted(project.defs.rglob(FILE)))


def load_named(project: Project, name: str) -> Declared:
    """One database of the project; of the other files only those are read that may have to do with its name.

    Raises what ``Declarations.get`` does.
    """
    files = [file for file in sorted(project.defs.rglob(FILE)) if _may_concern(file, name)]
    try:
        return _load(project, files).get(name)
    except UnknownDatabase:
        return load_project(project).get(name)


def load_of_job(project: Project, job: str) -> Declared | None:
    """The database that has a job of this name, the others not read; None where none has, or it does not hold."""
    names = {_name_in(file) for file in project.defs.rglob(FILE)}
    for name in sorted(filter(None, names), key=len, reverse=True):
        if job == name or job.startswith(f"{name}_"):
            with suppress(PlatformError):
                declared = load_named(project, name)
                if job in (name, *_jobs(declared)):
                    return declared
    return None


def _load(project: Project, files: Iterable[Path]) -> Declarations:
    loaded: dict[str, Declared] = {}
    jobs: dict[str, str] = {}
    broken: list[Broken] = []
    for file in files:
        try:
            declared = load_file(file, project)
            if declared is not None:
                _refuse_second(declared, loaded, jobs)
                loaded[declared.name] = declared
                jobs |= dict.fromkeys(_jobs(declared), declared.name)
        except PlatformError as error:
            broken.append(Broken(file.parent.name, _name_in(file), error))
    return Declarations(project, tuple(loaded[name] for name in sorted(loaded)), tuple(broken))


def load_file(file: Path, project: Project) -> Declared | None:
    """One declaration; None when the file declares another kind of component. Raises ``YamlMistake``."""
    document = LinedDocument(file, shown=project.shown(file))
    attributes = _attributes(document)
    if attributes is None:
        return None
    database = document.validated(Database, attributes, at=("attributes",))
    declared = Declared(database, file.parent, document)
    _check_folders(declared, project)
    return declared


def _attributes(document: LinedDocument) -> dict[str, Any] | None:
    value = document.value
    begins = f"A declaration begins with 'type: {TYPE}'."
    if value is None:
        raise document.mistake("the file is empty.", hint=begins)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise document.mistake("the file has no type.", hint=begins)
    if value["type"] != TYPE:
        if value["type"].split(".")[0] == TYPE.split(".")[0]:
            raise document.mistake(f"there is no type {value['type']}.", where=("type",), hint=f"Allowed is: {TYPE}.")
        return None
    for key in value.keys() - _TOP_KEYS:
        raise document.unknown_key(str(key), sorted(_TOP_KEYS), where=(str(key),), inside="the top level")
    attributes = value.get("attributes")
    if attributes is None:
        return {}
    if not isinstance(attributes, dict):
        raise document.mistake(
            "attributes must be a mapping.", where=("attributes",), hint="Write them indented below, as key: value."
        )
    return attributes


def _refuse_second(declared: Declared, loaded: Mapping[str, Declared], jobs: Mapping[str, str]) -> None:
    """A name that is another database's, or that of a job; ``jobs`` have those of the databases ``loaded``."""
    name = declared.name
    if name in loaded:
        raise declared.document.mistake(
            f"the name {name!r} is taken by {loaded[name].document.shown}.",
            where=("attributes", "name"),
            hint="Give each database a name of its own.",
        )
    meant = [(name, jobs[name])] if name in jobs else [(job, name) for job in _jobs(declared) if job in loaded]
    for job, database in meant:
        raise declared.document.mistake(
            f"{job!r} is the name of a job of the database {database!r}.",
            where=("attributes", "name"),
            hint=f"Do not let a name end on _{job.rpartition('_')[2]}.",
        )


def _jobs(declared: Declared) -> list[str]:
    """The names of the jobs that a database has or may have, but for the one that is named as it is."""
    periods = [f"periods_{policy.table.word}" for policy in declared.database.partitioned_tables]
    return [f"{declared.name}_{job}" for job in (*JOBS, *periods)]


def _may_concern(file: Path, name: str) -> bool:
    """Whether a file may declare this database, or one whose name cannot stand beside it."""
    found = _name_in(file)
    return (
        found is None
        or name in (found, file.parent.name)
        or found.startswith(f"{name}_")
        or name.startswith(f"{found}_")
    )


def _name_in(file: Path) -> str | None:
    """The database's name in a file that does not hold, by its looks."""
    with suppress(OSError, UnicodeDecodeError):
        found = re.search(r"^\s+name:\s*([A-Za-z0-9_]+)\s*(?:#.*)?$", file.read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else None
    return None


def _check_folders(declared: Declared, project: Project) -> None:
    """The folders that are named must be there."""
    database = declared.database
    named: list[tuple[Where, Path]] = []
    if database.migrations is not None:
        several = isinstance(database.migrations.directory, list)
        named += [
            (("migrations", "directory", index) if several else ("migrations", "directory"), folder)
            for index, folder in enumerate(database.migrations.folders(declared.folder))
        ]
    named += [
        (("seeds", index, "directory"), declared.folder / seed.directory) for index, seed in enumerate(database.seeds)
    ]
    for where, folder in named:
        if not folder.is_dir():
            raise declared.document.mistake(
                f"the folder {project.shown(folder)} does not exist.",
                where=("attributes", *where),
                hint="Create it, or correct the name.",
            )
