"""One project at work: its declared databases, the embedded server and the ledger, each opened when first needed.

Each is imported then, too: a verb that needs neither does not pay for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from dbplatform import machines
from dbplatform.declaration.loading import Declarations, Declared, load_named, load_project
from dbplatform.declaration.project import Project
from dbplatform.home import Home
from dbplatform.postgres.connection import AutocommitConnection, Target, connect, watched
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import WRITER, advisory_lock
from dbplatform.postgres.standbys import answered

if TYPE_CHECKING:
    from dbplatform.ledger.ledger import Ledger
    from dbplatform.postgres.embedded.server import EmbeddedServer
    from dbplatform.roles.policy import Capability

LEDGER_DATABASE = "dbplatform_ledger"
LEDGER_VARIABLE = "DBPLATFORM_LEDGER_URL"
LEDGER_HISTORY = Relation("ledger", "schema_history")


class Platform:
    """What the command line and the Dagster layer both work with. Making one reads and opens nothing."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._created: set[str] = set()

    @property
    def home(self) -> Home:
        return self.project.home

    @cached_property
    def declarations(self) -> Declarations:
        return load_project(self.project)

    def declared(self, name: str) -> Declared:
        """One declared database; the others are not read for it. Raises what ``Declarations.get`` does."""
        return self.declarations.get(name) if "declarations" in vars(self) else load_named(self.project, name)

    @cached_property
    def server(self) -> EmbeddedServer:
        from dbplatform.postgres.embedded.server import EmbeddedServer

        return EmbeddedServer(self.home, archive_wal=self._wants_wal)

    def _wants_wal(self) -> bool:
        """Whether a database on the embedded server declares that its WAL is archived."""
        return any(
            declared.database.connection.url_env is None
            and declared.database.backups is not None
            and declared.database.backups.physical is not None
            and declared.database.backups.physical.wal_archive
            for declared in self.declarations.databases
        )

    def target(self, declared: Declared) -> Target:
        """The database to work on; one on the embedded server is started and created when it is missing.

        Raises ``VariableNotSet`` where the declared variable is not set, and ``OnOneMachine``.
        """
        url = _url_of(declared)
        return Target(declared.name, url or self.embedded_url(declared.name))

    def existing_target(self, declared: Declared) -> Target | None:
        """The database to look at; None where it would have to be started or created first, which is not done.

        Raises ``VariableNotSet`` and ``OnOneMachine``.
        """
        url = _url_of(declared)
        if url is None and not (self.server.status().running and self.server.has_database(declared.name)):
            return None
        return Target(declared.name, url or self.server.url(declared.name))

    def embedded_url(self, database: str) -> str:
        """The URL of a database on the embedded server, which is started, and the database created, when missing."""
        self.server.start()
        if database not in self._created:
            self.server.ensure_database(database)
            self._created.add(database)
        return self.server.url(database)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, its schema applied: at ``DBPLATFORM_LEDGER_URL``, by default on the embedded server.

        Raises ``OnOneMachine``.
        """
        from dbplatform.ledger.ledger import Ledger

        declared = _ledger_url()
        target = Target("the ledger", declared or self.embedded_url(LEDGER_DATABASE))
        apply_ledger_schema(target)
        return Ledger(target)

    def existing_ledger(self) -> Ledger | None:
        """The ledger as it is, if it can be had without starting, creating or migrating anything."""
        from dbplatform.ledger.ledger import Ledger

        declared = _ledger_url()
        if declared:
            return Ledger(Target("the ledger", declared))
        if not self.server.status().running or not self.server.has_database(LEDGER_DATABASE):
            return None
        return Ledger(Target("the ledger", self.server.url(LEDGER_DATABASE)))

    def target_as(self, declared: Declared, *capabilities: Capability) -> Target:
        """The same, to work as the first of these roles that its user has; as itself where no roles are declared."""
        policy = declared.database.roles
        if policy is None:
            return self.target(declared)
        from dbplatform.roles.acting import acting

        return acting(self.target(declared), *(policy.role(one, declared.name) for one in capabilities))

    @contextmanager
    def writer(self, declared: Declared, work: str) -> Iterator[AutocommitConnection]:
        """The one writing session of a database, under its advisory lock, which goes with this process (PostgreSQL 14).

        With declared roles, archives are written by the role for that; all else belongs to the one that migrates.
        Raises ``LockNotAcquired``, and ``StandbyDoesNotAnswer`` where commits wait for a standby that is gone.
        """
        roles: tuple[Capability, ...] = ("archive", "migrate") if work.startswith("archive") else ("migrate",)
        with (
            answered(self.target(declared)),
            connect(self.target_as(declared, *roles), work=work) as connection,
            watched(connection),
            advisory_lock(connection, WRITER),
        ):
            yield connection


def _url_of(declared: Declared) -> str | None:
    """The URL of a database; None where it lies on the embedded server, which only one machine has."""
    url = declared.url_from_environment()
    if url is None:
        hint = "Let it lie on a server that all reach: connection: {url_env: A_VARIABLE}."
        machines.refuse_on_one(f"The database {declared.name}", "its embedded server", hint=hint)
    return url


def _ledger_url() -> str | None:
    url = os.environ.get(LEDGER_VARIABLE)
    if not url:
        machines.refuse_on_one("The ledger", "its embedded server", hint=f"Name its database in {LEDGER_VARIABLE}.")
    return url


def apply_ledger_schema(target: Target) -> None:
    """Bring the ledger's schema up to date, by the same engine that migrates the declared databases."""
    from dbplatform.migrations.engine import MigrationPolicy, apply_migrations

    policy = MigrationPolicy(history_table=LEDGER_HISTORY)
    with as_file(files("dbplatform.ledger") / "schema") as directory, connect(target, work="ledger") as connection:
        apply_migrations(connection, directory, policy, database=target.name)
