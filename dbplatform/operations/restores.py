"""A restore as it is asked for, on the command line and in a job: what of, as of when, and where to.

Three kinds of work have one way in: a dump of the whole database, one table of a dump, and a moment, for which the
server is recovered aside. ``plan`` looks at all that can be known beforehand, ``apply`` does what was planned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbplatform.backups.catalogue import Backup
from dbplatform.backups.physical.recover import RecoveryReport
from dbplatform.backups.physical.targets import RecoveryPlan
from dbplatform.backups.physical.wal import parse_lsn
from dbplatform.backups.restore import RestoreReport
from dbplatform.backups.table import TableReport
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations import backups, recovery
from dbplatform.operations.platform import Platform
from dbplatform.postgres.identifiers import Relation

#: In the place of an id: the newest complete dump.
NEWEST = "newest"
#: In the place of a time: all that is archived.
LATEST = "latest"

Report = RestoreReport | RecoveryReport | TableReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asks for, as it was written: exactly one of the first four."""

    backup: str | None = None
    time: str | None = None
    lsn: str | None = None
    restore_point: str | None = None
    into: str | None = None
    replace: str | None = None
    table: str | None = None
    aside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """What would be restored; its ``source`` says which of the three kinds it is."""

    database: str
    source: Backup | RecoveryPlan
    table: Relation | None
    aside: str | None
    into: str | None
    """The name of the restored database; none where a table goes into the declared one."""
    replace: str | None

    @property
    def words(self) -> str:
        """What comes from where and goes whereto."""
        if self.table is not None:
            place = f"its place in {self.database}"
            if self.into or self.aside:
                place = f"the new database {self.into}" if self.into else f"the new schema {self.aside}"
            return f"{self.table} of backup {self._backup.id} into {place}"
        what = f"backup {self._backup.id}"
        if isinstance(self.source, RecoveryPlan):
            way = f"from base backup {self._backup.id} and {len(self.source.wal)} WAL files,"
            what = f"{self.source.database} as of {self.source.moment.words}, {way}"
        return f"{what} into the database {self.into}" + (", which is replaced" if self.replace else "")

    def as_json(self) -> dict[str, Any]:
        """The document of ``restore --dry-run --json``."""
        if self.table is not None:
            return {"backup_id": self._backup.id, "table": str(self.table), "aside": self.aside, "into": self.into}
        more = self.source.as_json() if isinstance(self.source, RecoveryPlan) else {"backup_id": self.source.id}
        return {**more, "into": self.into, "replace": self.replace}

    @property
    def _backup(self) -> Backup:
        return self.source.base if isinstance(self.source, RecoveryPlan) else self.source


def plan(platform: Platform, declared: Declared, request: Request, *, only_look: bool = False) -> RestorePlan:
    """Look at all that the restore needs. Only reads; but where a moment lacks only newer WAL, that is archived first,
    unless ``only_look``.

    Raises ``UsageError`` for what does not fit together, and what ``backups.plan_restore``, ``backups.plan_table`` and
    ``recovery.plan_restore`` raise.
    """
    given = _moment(request)
    if request.table is not None:
        return _plan_table(platform, declared, request)
    if request.aside is not None:
        raise UsageError("--aside is for one table.", hint="Name it: --table public.t")
    into = request.into or request.replace
    if into is None:
        raise UsageError(
            "restore needs to know where to.",
            hint=f"Beside the database: --into {declared.name}_restored. In its place: --replace {declared.name}.",
        )
    backup_id = _backup_id(request)
    source: Backup | RecoveryPlan
    if backup_id is not None and recovery.is_physical(platform, declared, backup_id):
        given = {"backup_id": backup_id}
    if given:
        source = recovery.plan_restore(
            platform, declared, into=into, replace=request.replace, only_look=only_look, **given
        )
    else:
        source = backups.plan_restore(platform, declared, backup_id=backup_id, into=into, replace=request.replace)
    return RestorePlan(
        database=declared.name, source=source, table=None, aside=None, into=into, replace=request.replace
    )


def apply(
    platform: Platform,
    declared: Declared,
    planned: RestorePlan,
    *,
    run_id: str | None = None,
    before_renamed: Callable[[], None] = lambda: None,
) -> Report:
    """Restore what was planned; recorded in the ledger. Looks again at what may have changed since.

    ``before_renamed`` is called when a whole database is ready, right before it gets its name, and may raise.
    """
    if planned.table is not None:
        return backups.bring_back_table(
            platform,
            declared,
            planned._backup,
            planned.table,
            aside=planned.aside,
            into=planned.into,
            run_id=run_id,
        )
    assert planned.into is not None
    into, replace = planned.into, planned.replace
    if isinstance(planned.source, RecoveryPlan):
        return recovery.bring_back(
            platform, declared, planned.source, into=into, replace=replace, run_id=run_id, before_renamed=before_renamed
        )
    return backups.bring_back(
        platform, declared, planned.source, into=into, replace=replace, run_id=run_id, before_renamed=before_renamed
    )


def _moment(request: Request) -> dict[str, Any]:
    """The moment as ``recovery.plan_restore`` takes it; empty where a backup was named."""
    asked = {
        "--time": request.time,
        "--lsn": request.lsn,
        "--restore-point": request.restore_point,
        "--backup": request.backup,
    }
    named = [option for option, value in asked.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} name two moments.", hint="Name one.")
    if not named:
        raise UsageError(
            "restore needs to know what of.",
            hint=f"The newest dump: --backup {NEWEST}. Or one by its id, or a moment: --time, --lsn, --restore-point.",
        )
    if request.time is not None:
        return {"latest": True} if request.time == LATEST else {"time": _time(request.time)}
    if request.lsn is not None:
        try:
            return {"lsn": parse_lsn(request.lsn)}
        except ValueError as error:
            raise UsageError(f"{error}.") from None
    return {"restore_point": request.restore_point} if request.restore_point is not None else {}


def _plan_table(platform: Platform, declared: Declared, request: Request) -> RestorePlan:
    assert request.table is not None
    if request.backup is None:
        raise UsageError(
            "One table comes back out of a dump, not as of a moment.",
            hint="Restore the database as of then beside it, by --into, and take the table from there.",
        )
    if request.replace or (request.aside and request.into):
        raise UsageError(
            "One table goes to one place, and never over another.",
            hint="In its place, if it is gone: no option. Beside it: --aside SCHEMA. Into a new database: --into NAME.",
        )
    try:
        table = Relation.parse(request.table)
    except ValueError as error:
        raise UsageError(f"{error}.", hint="Write --table public.t") from None
    aside, into = request.aside, request.into
    source = backups.plan_table(platform, declared, table, backup_id=_backup_id(request), aside=aside, into=into)
    return RestorePlan(database=declared.name, source=source, table=table, aside=aside, into=into, replace=None)


def _backup_id(request: Request) -> str | None:
    return None if request.backup == NEWEST else request.backup


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time.", hint="Write ISO 8601: 2026-01-31T12:00:00+01:00") from None
    if found.tzinfo is None:
        raise UsageError(f"{text!r} has no offset from UTC.", hint="Write it: 2026-01-31T12:00:00Z, or with +01:00.")
    return found
