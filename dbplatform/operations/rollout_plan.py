"""Which databases a roll-out would migrate, in which order, and what of them is pending. Nothing here writes.

The migration history of each is read anew every time. What the ledger remembers of an earlier attempt are its canaries:
one that was not found well can only be replaced by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, UsageError, WorkError
from dbplatform.operations import rollouts, schema
from dbplatform.operations.platform import Platform
from dbplatform.operations.rollouts import Found, Record

_READ_AT_ONCE = 8


class NotACanary(UsageError):
    """The canary {name!r} is not among the databases to migrate."""


class CanaryLeftOut(UsageError):
    """The canary {name} of this roll-out was not yet found well, and is not among the databases to migrate."""


class CannotBePlanned(WorkError):
    """Nothing was begun, because {count} of {all} databases cannot be planned: {reasons}"""

    def __init__(self, *, exit_code: int, **fields: Any) -> None:
        super().__init__(**fields)
        self.exit_code = exit_code  # type: ignore[misc]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one database is."""

    declared: Declared
    files: str
    """Its migrations, as a digest: only these are applied."""
    canary: bool
    version: str | None
    pending: tuple[str, ...]
    """The files that would be applied."""
    in_force: str
    """What is applied, as a digest (``MigrationPlan.in_force``)."""
    in_part: bool
    """Whether an earlier attempt may have run a part of the first of them, which no transaction holds together."""

    def as_before(self, kept: Mapping[str, Any]) -> bool:
        """Whether no migration has touched it since that was kept of it, or what did was undone."""
        return not self.in_part and kept.get("in_force") == self.in_force

    @property
    def found(self) -> Found:
        """As the ledger keeps it."""
        return Found(
            database=self.declared.name,
            canary=self.canary,
            version=self.version,
            in_force=self.in_force,
            is_there=not self.pending,
        )

    def as_json(self) -> dict[str, Any]:
        """One of ``databases`` of a plan."""
        return {
            "database": self.declared.name,
            "canary": self.canary,
            "state": "untouched" if self.pending else "done",
            "version": self.version,
            "pending": list(self.pending),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """The databases in the order in which they come: canaries, then the others by name."""

    scope: str
    target: str | None
    places: tuple[Place, ...]
    goes_on: Record | None
    """The roll-out that was begun before, and is not over."""
    left_out: Mapping[str, str]
    """The databases that are not migrated, and why, in the words that follow a name: ``is frozen ...``."""

    @property
    def canaries(self) -> tuple[Place, ...]:
        return tuple(place for place in self.places if place.canary)

    @property
    def pending(self) -> tuple[Place, ...]:
        """Those that are to be migrated."""
        return tuple(place for place in self.places if place.pending)

    def as_json(self) -> dict[str, Any]:
        """The document of ``migrate apply --all --dry-run --json``."""
        return {
            "rollout": self.goes_on.id if self.goes_on else None,
            "scope": self.scope,
            "target": self.target,
            "status": "planned",
            "databases": [place.as_json() for place in self.places],
            "left_out": self.left_out_json,
        }

    @property
    def left_out_json(self) -> list[dict[str, str]]:
        """``left_out`` of the documents of a plan and of a roll-out."""
        return [{"database": name, "reason": why} for name, why in self.left_out.items()]


def plan_rollout(
    platform: Platform,
    databases: Sequence[Declared],
    *,
    scope: str,
    target: str | None = None,
    canaries: Sequence[str] = (),
    left_out: Mapping[str, str] | None = None,
) -> RolloutPlan:
    """Read the history of each database; only reads.

    Those that declare no migrations are left out, with those of ``left_out``, which are not among the ``databases``.
    Canaries are those named, and those of the roll-out that is gone on with. Raises ``NotACanary``, ``CanaryLeftOut``
    where one of these is neither proven nor here, and nobody named another, and ``CannotBePlanned`` with every database
    whose history cannot be read, or does not fit its files.
    """
    known = [declared for declared in databases if declared.database.migrations is not None]
    names = {declared.name for declared in known}
    for name in canaries:
        if name not in names:
            raise NotACanary(name=name, hint=f"These are: {', '.join(sorted(names)) or 'none'}.")
    goes_on = rollouts.unfinished(platform.ledger, scope, target)
    begun = [stage for stage in goes_on.stages if stage.canary] if goes_on else []
    first = {*canaries, *(stage.database for stage in begun)}
    unproven = first - {stage.database for stage in begun if stage.proven_at is not None}
    if not canaries and (gone := sorted(unproven - names)):
        raise CanaryLeftOut(
            name=", ".join(gone),
            hint="Bring it back: reachable, not frozen, its declaration mended. Or name another one: --canary NAME",
        )

    def place(declared: Declared) -> Place | PlatformError:
        try:
            files = schema.read(declared)
            planned = schema.plan(platform, declared, target=target, files=files)
        except PlatformError as error:
            return error
        return Place(
            declared=declared,
            files=files.digest,
            canary=declared.name in first,
            version=str(planned.current) if planned.current else None,
            pending=tuple(pending.script for pending in planned.pending),
            in_force=planned.in_force,
            in_part=bool(planned.pending) and not planned.pending[0].in_transaction,
        )

    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="plan") as pool:
        found = dict(zip([declared.name for declared in known], pool.map(place, known), strict=True))
    problems = {name: one for name, one in found.items() if isinstance(one, PlatformError)}
    if problems:
        raise CannotBePlanned(
            count=len(problems),
            all=len(found),
            reasons=" ".join(f"{name}: {error}" for name, error in problems.items()),
            exit_code=max(error.exit_code for error in problems.values()),
            hint=_mend(sorted(problems.keys() & unproven), [name for name in problems if name not in unproven]),
        )
    places = [one for one in found.values() if isinstance(one, Place)]
    without = {declared.name for declared in databases} - names
    return RolloutPlan(
        scope=scope,
        target=target,
        places=tuple(sorted(places, key=lambda one: (not one.canary, one.declared.name))),
        goes_on=goes_on,
        left_out=dict(sorted({**(left_out or {}), **dict.fromkeys(without, "declares no migrations")}.items())),
    )


def _mend(canaries: Sequence[str], others: Sequence[str]) -> str:
    """What to do about databases that cannot be planned: without a proven canary the others would be the canaries."""
    if not canaries:
        return f"Mend them, or leave them out: --except {','.join(others)}"
    names = ",".join(canaries)
    begin = f"Mend the canary {names}, or begin with another one: --except {names} --canary NAME"
    return f"{begin}. The others may be left out: --except {','.join(others)}" if others else begin
