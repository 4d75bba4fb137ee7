"""Migrations of many databases: canaries first, then the others side by side, and no further after the first failure.

What is to be done is read from the migration history of each database, each time anew: a roll-out that was stopped,
or killed, goes on by the same command, and leaves alone what has nothing pending. How each database is migrated (the
locks, the retries, the gates) is ``schema.apply``; whoever calls says how many go on at once, and applies the files
that were planned or none: one that came into a folder since is one that no canary had.

A canary is looked at before and after (``canary``), and once a minute in between while it soaks. The others wait until
each canary is as well as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from dbplatform.backups.holding import held
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, UsageError, WorkError
from dbplatform.operations import rollouts, schema
from dbplatform.operations.canary import Look, look, worse
from dbplatform.operations.platform import Platform
from dbplatform.operations.rollout_plan import Place, RolloutPlan
from dbplatform.operations.rollouts import Record

#: A canary that soaks is looked at so often.
_LOOK_SECONDS = 60.0


class RolloutGoesOn(UsageError):
    """Somebody else works at the {what}."""


class RolloutFailed(WorkError):
    """The roll-out stopped at {database}: {reason}"""

    def __init__(self, *, exit_code: int = 3, **fields: Any) -> None:
        super().__init__(**fields)
        self.exit_code = exit_code  # type: ignore[misc]


class CanaryNotWell(WorkError):
    """The canary {database} is not as well as before: {reason}."""


class RolloutStopped(WorkError):
    """The roll-out was stopped."""


class Moved(Protocol):
    """How the migration of one database ended."""

    @property
    def database(self) -> str: ...
    @property
    def exit_code(self) -> int: ...
    @property
    def document(self) -> Mapping[str, Any]: ...
    @property
    def seconds(self) -> float: ...


class Moves(Protocol):
    """Migrations that go on side by side; leaving the block ends those that still do."""

    def __enter__(self) -> Moves: ...
    def __exit__(self, *_: object) -> None: ...
    def __iter__(self) -> Iterator[Moved]: ...
    def begin_no_more(self) -> object: ...


#: Migrates databases; hears of each that begins.
Migrate = Callable[[Sequence[Declared], Callable[[str], None]], Moves]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """How a roll-out ended, or where it stands."""

    record: Record
    problem: PlatformError | None


def roll_out(
    platform: Platform,
    plan: RolloutPlan,
    *,
    migrate: Migrate,
    soak: timedelta = timedelta(0),
    tell: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = rollouts.now,
) -> Rolled:
    """Migrate as planned. ``soak`` is how long canaries are watched before the others begin.

    Whatever stops it is in the answer, and in the ledger. May be killed anywhere, and planned and called again. Raises
    ``RolloutGoesOn`` while another process works at the same one.
    """
    ledger = platform.ledger
    with held(ledger, rollouts.lock_of(plan.scope, plan.target)) as mine:
        if not mine:
            what = rollouts.lock_of(plan.scope, plan.target)
            raise RolloutGoesOn(what=what, hint="See how far it is: dbplatform migrate rollouts")
        id_ = rollouts.take_up(ledger, plan.scope, plan.target, [place.found for place in plan.places], plan.left_out)
        rolling = _Rolling(platform, plan, id_, migrate, tell)
        problem: PlatformError | None = None
        try:
            rolling.canaries(soak, pause, now)
            rolling.migrate([place for place in plan.pending if not place.canary])
        except KeyboardInterrupt:
            problem = RolloutStopped(hint="The same command goes on where it stood.")
        except PlatformError as error:
            problem = error
        except BaseException as error:
            rollouts.end(ledger, id_, "failed", str(error))
            raise
        status = "succeeded" if problem is None else "stopped" if isinstance(problem, RolloutStopped) else "failed"
        rollouts.end(ledger, id_, status, problem.message if problem else "")
        return Rolled(record=rollouts.read(ledger, id_), problem=problem)


class _Rolling:
    """One roll-out at work."""

    def __init__(
        self, platform: Platform, plan: RolloutPlan, id_: int, migrate: Migrate, tell: Callable[[str], None]
    ) -> None:
        self.platform, self.plan, self.id, self._migrate, self.tell = platform, plan, id_, migrate, tell

    def canaries(self, soak: timedelta, pause: Callable[[float], None], now: Callable[[], datetime]) -> None:
        """Migrate the canaries, and wait until each is as well as it was. Raises what stops the roll-out."""
        stages = {stage.database: stage for stage in rollouts.read(self.platform.ledger, self.id).stages}
        waiting = [one for one in self.plan.canaries if one.pending or stages[one.declared.name].proven_at is None]
        before: dict[str, Look] = {}
        for place in waiting:
            name, kept = place.declared.name, stages[place.declared.name].before
            if not kept or place.as_before(kept):
                kept = look(self.platform, place.declared, target=self.plan.target, now=now()).as_json()
                rollouts.note(self.platform.ledger, self.id, name, before=kept)
            before[name] = Look.of_json(kept)
        self.migrate([place for place in waiting if place.pending])
        stages = {stage.database: stage for stage in rollouts.read(self.platform.ledger, self.id).stages}
        # Where nobody saw a canary come to its end, or another command changed it since, all of it is still to come.
        since = max((stages[one.declared.name].ended_at or now() for one in waiting), default=now())
        until = since + (soak if self.plan.pending else timedelta(0))
        while waiting:
            for place in waiting:
                schema.read(place.declared, digest=place.files)
                self._prove(place.declared, before[place.declared.name], now())
            if (left := (until - now()).total_seconds()) <= 0:
                break
            self.tell(f"the canaries are well; they are watched for another {left:.0f} s")
            pause(min(left, _LOOK_SECONDS))
        for place in waiting:
            rollouts.note(self.platform.ledger, self.id, place.declared.name, proven_at=now())
            self.tell(f"canary {place.declared.name}: as well as before")

    def _prove(self, declared: Declared, before: Look, now: datetime) -> None:
        try:
            after = look(self.platform, declared, target=self.plan.target, now=now)
            found = worse(before, after)
            rollouts.note(self.platform.ledger, self.id, declared.name, after=after.as_json(), version=after.version)
        except PlatformError as error:
            found = [error.message.rstrip(".")]
        if found:
            reason = "; ".join(found)
            rollouts.note(self.platform.ledger, self.id, declared.name, state="failed", reason=reason)
            hint = f"Mend it, or undo it: dbplatform migrate undo {declared.name}. No other database was begun."
            raise CanaryNotWell(database=declared.name, reason=reason, hint=hint)

    def migrate(self, places: Sequence[Place]) -> None:
        """Migrate these side by side; after the first failure no other begins. Raises ``RolloutFailed``."""
        if not places:
            return
        ledger, failed = self.platform.ledger, None

        def begun(name: str) -> None:
            rollouts.note(ledger, self.id, name, state="running", ended_at=None)

        with self._migrate([place.declared for place in places], begun) as moves:
            for moved in moves:
                self._ended(moved)
                if moved.exit_code != 0:
                    moves.begin_no_more()
                    failed = failed or moved
        if failed is not None:
            raise RolloutFailed(
                database=failed.database,
                reason=failed.document.get("error", {}).get("message", f"exit code {failed.exit_code}"),
                exit_code=failed.exit_code,
                hint=failed.document.get("error", {}).get("hint"),
            )

    def _ended(self, moved: Moved) -> None:
        error = moved.document.get("error")
        values: dict[str, Any] = {"seconds": round(moved.seconds, 3), "ended_at": rollouts.now()}
        if moved.exit_code == 0:
            values |= {"state": "done", "version": moved.document.get("current")}
        else:
            reason = error["message"] if error else f"it ended with exit code {moved.exit_code}"
            values |= {"state": "failed", "reason": reason}
        rollouts.note(self.platform.ledger, self.id, moved.database, **values)
        mark = "✓" if moved.exit_code == 0 else "✗"
        words = f"at version {moved.document.get('current')}" if moved.exit_code == 0 else values["reason"]
        self.tell(f"{mark} {moved.database:<30} {moved.seconds:8.2f} s  {words}")
