"""Drift: the schema that a database has, against the one that its migrations build in an empty database.

Built is what the history says is in force. A file that is still to come must not show as drift: a pending version is
not built. A repeatable whose text has changed since may have left its former work, and a pending file without a
transaction a part of its work: what such a file makes is found out, and left out of the comparison.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dbplatform.migrations.apply import apply_migrations
from dbplatform.migrations.callbacks import BEGINNING, END, run_events
from dbplatform.migrations.compare import Comparison, Files, compare, version_of
from dbplatform.migrations.drift.differences import Difference, differences
from dbplatform.migrations.drift.mending import fix_sql
from dbplatform.migrations.drift.objects import Objects, SchemaObject, query, schema_objects
from dbplatform.migrations.errors import CannotCompare, MigrationFailed, ServerWide
from dbplatform.migrations.files import Folders, Migration, Version
from dbplatform.migrations.history import HistoryRow
from dbplatform.migrations.plan import read_pending
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation

Key = tuple[str, str]

_MUST_RUN = (
    "It must run in an empty database, too. Where it makes what the server has already, such as a role, name a server "
    "of its own for trials: connection.scratch_url_env."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What the expected schema is built of."""

    database: str
    """The declared name."""
    live: str
    """The name of the database itself."""
    version: Version | None
    """The newest applied version."""
    files: Files
    """Those in force, without repeatables."""
    repeatables: tuple[Migration, ...]
    changed: frozenset[str]
    """Descriptions of repeatables whose text is not what was applied, or that never were."""
    later: tuple[Migration, ...]
    """Pending versions."""
    begun: Migration | None
    """The pending version that an earlier run may have done in part."""
    policy: MigrationPolicy
    partitioned: tuple[Relation, ...]
    fingerprint: tuple[object, ...]
    """All that the expected schema follows from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the migrations build."""

    objects: Objects
    left_out: Mapping[str, tuple[Key, ...]]
    """By script: what a pending file makes, which may be there in another form, in part, or not at all."""

    @property
    def counts(self) -> dict[str, int]:
        """How many tables, indexes and foreign keys it has; partitions count with their table."""
        things = self.objects.values()
        return {
            "tables": sum(thing.kind == "table" and "partition" not in thing.parts for thing in things),
            "indexes": sum(thing.kind == "index" for thing in things),
            "foreign_keys": sum(
                thing.kind == "constraint" and thing.parts["definition"].startswith("FOREIGN KEY") for thing in things
            ),
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "objects": [thing.as_json() for thing in self.objects.values()],
            "left_out": {script: list(map(list, keys)) for script, keys in self.left_out.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Expected:
        return cls(
            objects=_by_key(SchemaObject(**thing) for thing in document["objects"]),
            left_out={script: tuple(map(_key, keys)) for script, keys in document["left_out"].items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """How a database differs from what its migrations make."""

    database: str
    version: Version | None
    differences: tuple[Difference, ...]
    left_out: Mapping[str, tuple[Key, ...]]
    """By pending script: what was not compared."""
    notes: tuple[str, ...]
    """What differs and comes from the server or the platform, not from a change of the schema."""

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate drift --json``."""
        return {
            "database": self.database,
            "version": str(self.version) if self.version else None,
            "differences": [{**found.as_json(), "fix_sql": fix_sql(found)} for found in self.differences],
            "left_out": [
                {"script": script, "objects": [" ".join(key) for key in keys]} for script, keys in self.left_out.items()
            ],
            "notes": list(self.notes),
        }


def blueprint(
    live: AutocommitConnection,
    folders: Folders | Files,
    policy: MigrationPolicy,
    *,
    partitioned: Sequence[Relation] = (),
    database: str | None = None,
) -> Blueprint:
    """What the connected database's schema should be built of, by its history. Only reads.

    Raises ``HistoryMismatch`` where files and history do not fit, and ``CannotCompare`` where the history holds what
    these files cannot build: a baseline without a file, a migration that is no SQL, versions from newer files.
    """
    files, name = Files.of(folders), database or live.info.dbname
    # What was applied has been judged when it was, perhaps by Flyway, which knows no such rules.
    lenient = policy.model_copy(update={"allow_destructive": True, "out_of_order": True})
    found = compare(live, files, lenient, target=None)
    built = _in_force(files, found, name)
    later = tuple(migration for migration, _ in found.pending if migration.version is not None)
    changed = frozenset(migration.description for migration, _ in found.pending if migration.version is None)
    begun = _perhaps_begun(live, found)
    return Blueprint(
        database=name,
        live=live.info.dbname,
        version=found.current,
        files=built,
        repeatables=tuple(files.repeatable.values()),
        changed=changed,
        later=later,
        begun=begun,
        policy=lenient,
        partitioned=tuple(partitioned),
        fingerprint=(
            *(files.digest, sorted(map(str, [*built.versioned, *built.baseline])), sorted(changed)),
            begun.script if begun else None,
            *(policy.placeholders, policy.history_table, list(map(str, partitioned)), live.info.dbname),
            *(live.info.server_version // 10000, query()),
        ),
    )


def build(connection: AutocommitConnection, plan: Blueprint, *, server_wide: bool) -> Expected:
    """Build the expected schema in the connected database, which must be empty and is used up by it.

    ``server_wide`` is that of ``apply_migrations``. Raises ``CannotCompare`` where a file in force does not run there.
    """
    return _Build(connection, plan, server_wide).expected()


def drift(
    live: AutocommitConnection,
    plan: Blueprint,
    expected: Expected,
    *,
    known: Mapping[Relation, str] | None = None,
    roles: Collection[str] = (),
) -> DriftReport:
    """Compare. Only reads, under ACCESS SHARE on the catalog.

    ``known``: tables that the platform itself has made or set aside, and why. Where no migration makes them, they are
    noted and not compared. ``roles``: what is granted to these is no matter of migrations.
    """
    found = {
        key: one
        for key, one in schema_objects(
            live, history_table=plan.policy.history_table, partitioned=plan.partitioned
        ).items()
        if not (one.kind in ("grant", "default privileges") and one.sql["to"] in roles)
        # What it owns it may, as whoever owns it in the scratch database.
        or one.name.endswith(" to the owner")
    }
    left_out = {key for keys in expected.left_out.values() for key in keys}
    aside = {
        key: f"The table {key[1]} {words}."
        for key in sorted(found.keys() - expected.objects.keys())
        if key[0] == "table" and (words := (known or {}).get(Relation.parse(key[1])))
    }
    wanted, there = _without(expected.objects, left_out), _without(found, left_out, tables=aside.keys())
    return DriftReport(
        database=plan.database,
        version=plan.version,
        differences=differences(wanted, there),
        left_out=expected.left_out,
        notes=(*_version_notes(wanted, there), *aside.values()),
    )


def _in_force(files: Files, found: Comparison, database: str) -> Files:
    """The files whose work is in the database; a baseline stands for those up to it."""
    if found.future:
        raise _cannot(database, f"{found.future[0].script} was applied from newer files than these", "Bring them here.")
    rows = [row for row in found.applied if row.version is not None]
    baselines = [row for row in rows if row.type in ("BASELINE", "SQL_BASELINE")]
    start = max((_version(row) for row in baselines), default=None)
    known = {_version(row) for row in rows}
    for row in rows:
        if row.type not in ("SQL", "BASELINE", "SQL_BASELINE"):
            raise _cannot(database, f"{row.script} is no SQL ({row.type})", "Compare by hand what it has made.")
    if start is None or start in files.baseline:
        versions = {v: m for v, m in files.versioned.items() if v in known and (start is None or v > start)}
        return replace(
            files, versioned=versions, baseline={start: files.baseline[start]} if start else {}, repeatable={}
        )
    if start not in files.versioned:
        raise _cannot(
            database,
            f"it was taken over at version {start}, and no file says what lies below",
            f"Write the schema as it was then into B{start}__words.sql, for example by pg_dump --schema-only.",
        )
    versions = {v: m for v, m in files.versioned.items() if v <= start or v in known}
    return replace(files, versioned=versions, baseline={}, repeatable={})


def _perhaps_begun(live: AutocommitConnection, found: Comparison) -> Migration | None:
    """The first pending version, where it runs without a transaction."""
    migration, number = next(((m, n) for m, n in found.pending if m.version is not None), (None, 0))
    if migration is None:
        return None
    pending = read_pending(live, migration, number, found.placeholders, destructive=True)
    return None if pending.in_transaction else migration


@dataclass(slots=True)
class _Build:
    connection: AutocommitConnection
    plan: Blueprint
    server_wide: bool

    def expected(self) -> Expected:
        plan, left_out = self.plan, dict[str, tuple[Key, ...]]()
        files, too_early = plan.files, list[Migration]()
        self.fire(BEGINNING)
        self.apply(files)
        for migration in plan.repeatables:
            with_it = replace(files, repeatable={**files.repeatable, migration.description: migration})
            before = self.objects() if migration.description in plan.changed else None
            try:
                self.apply(with_it)
            except CannotCompare:
                if not plan.later:
                    raise
                too_early.append(migration)
                continue
            files = with_it
            if before is not None:
                left_out[migration.script] = _changed(before, self.objects())
        try:
            self.fire(END)
        except CannotCompare:
            # It may need what is pending, too.
            if not plan.later and not plan.changed:
                raise
        objects = before = self.objects()
        if plan.begun is not None:
            files = self.with_versions(files, [plan.begun])
            self.apply(files)
            left_out[plan.begun.script] = _changed(before, self.objects())
        if too_early:
            # A repeatable that needs a version that is pending: what it makes shows behind that.
            files = self.with_versions(files, plan.later)
            self.apply(files)
            for migration in too_early:
                before = self.objects()
                files = replace(files, repeatable={**files.repeatable, migration.description: migration})
                self.apply(files)
                left_out[migration.script] = _changed(before, self.objects())
        return Expected(objects=objects, left_out=left_out)

    def apply(self, files: Files) -> None:
        name = f"{self.plan.database} in a scratch database"
        with self.comparable():
            apply_migrations(
                self.connection,
                files,
                self.plan.policy,
                database=name,
                server_wide=self.server_wide,
                whole=False,
            )

    def fire(self, events: Sequence[str]) -> None:
        """Run callbacks of a whole run, which the building here does in parts."""
        with self.comparable():
            run_events(self.connection, self.plan.files, self.plan.policy, events, server_wide=self.server_wide)

    @contextmanager
    def comparable(self) -> Iterator[None]:
        """A file that does not run here means that nothing can be compared."""
        try:
            yield
        except (MigrationFailed, ServerWide) as error:
            hint = error.hint if isinstance(error, ServerWide) else _MUST_RUN
            raise CannotCompare(
                database=self.plan.database,
                reason=error.message.rstrip("."),
                hint=hint,
                file=error.file,
                line=error.line,
            ) from error

    def with_versions(self, files: Files, more: Sequence[Migration]) -> Files:
        return replace(files, versioned={**files.versioned, **{version_of(m): m for m in more}})

    def objects(self) -> Objects:
        """As they would be in the database itself: some texts hold its name."""
        plan = self.plan
        found = schema_objects(self.connection, history_table=plan.policy.history_table, partitioned=plan.partitioned)
        text = json.dumps([thing.as_json() for thing in found.values()])
        return _by_key(SchemaObject(**t) for t in json.loads(text.replace(self.connection.info.dbname, plan.live)))


def _changed(before: Objects, after: Objects) -> tuple[Key, ...]:
    return tuple(key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key))


def _without(objects: Objects, left_out: Set[Key], *, tables: Set[Key] = frozenset()) -> Objects:
    """Without these, and without what belongs to them; a table or schema that a file only changes keeps its own.

    ``tables`` keep nothing.
    """
    names = {f"{kind} {name}" for kind, name in left_out if kind not in ("table", "schema")}
    names |= {f"{kind} {name}" for kind, name in tables}
    while True:
        more = {t.full_name for t in objects.values() if t.parent in names} - names
        if not more:
            break
        names |= more
    return {key: t for key, t in objects.items() if key not in left_out and t.full_name not in names}


def _version_notes(wanted: Objects, there: Objects) -> Iterable[str]:
    for key in sorted(wanted.keys() & there.keys()):
        new, old = wanted[key].sql.get("version"), there[key].sql.get("version")
        if new != old:
            name = key[1]
            yield f"The extension {name} is of version {old}, a new database gets {new}: alter extension {name} update;"


def _by_key(things: Iterable[SchemaObject]) -> dict[Key, SchemaObject]:
    return {(thing.kind, thing.name): thing for thing in things}


def _key(pair: Sequence[str]) -> Key:
    return (pair[0], pair[1])


def _version(row: HistoryRow) -> Version:
    return Version.parse(row.version or "")


def _cannot(database: str, reason: str, hint: str) -> CannotCompare:
    return CannotCompare(database=database, reason=reason, hint=hint)
