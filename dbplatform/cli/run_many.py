"""``dbplatform run --all`` and ``--owner``: a run for each of many databases, whatever becomes of the others.

No Dagster here: each run has a process of its own, which loads the definitions of its database alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import click

from dbplatform import progress
from dbplatform.cli.common import Many, bars, bold, freeze_is_answered, note, platform_of, say, show_json, show_table
from dbplatform.cli.side_by_side import Ended, SideBySide, peak_at_once
from dbplatform.declaration.database import JOBS
from dbplatform.declaration.loading import Declarations, Declared
from dbplatform.errors import UsageError
from dbplatform.operations.servers import bounds
from dbplatform.orchestration.cadences import is_harmless

_MIB = 1 << 20

Status = Literal["succeeded", "failed", "stopped", "broken", "frozen", "no such job", "not begun"]


class NoSuchJob(UsageError):
    """None of these databases has a job {job}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of the run of one database."""

    database: str
    status: Status
    exit_code: int
    seconds: float | None = None
    peak_bytes: int | None = None
    document: Mapping[str, Any] | None = None
    """What ``run --json`` says of it."""
    error: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """One of ``runs``."""
        said = {**(self.document or {}), **(self.error or {})}
        return {
            "database": self.database,
            "status": self.status,
            "exit_code": self.exit_code,
            "run_id": said.get("run_id"),
            "verdict": said.get("verdict"),
            "report": said.get("report"),
            "seconds": None if self.seconds is None else round(self.seconds, 2),
            "peak_bytes": self.peak_bytes,
            "steps": said.get("steps"),
            "error": self.error,
        }


def run_many(context: click.Context, many: Many, options: Mapping[str, str], dry_run: bool, as_json: bool) -> int:
    """Run them all; the greatest of their exit codes, and 3 when it was stopped by Ctrl-C.

    One that is frozen is left out, unless ``--during-freeze`` was given; so is one that has no such job.
    """
    platform = platform_of(context)
    declarations = platform.declarations
    chosen = declarations.chosen(owner=many.owner, without=many.without)
    frozen = [] if dry_run or freeze_is_answered(context) else [*_frozen(chosen, options.get("--job"))]
    broken = [*_broken(declarations, many)]
    runs = [declared for declared in chosen if declared.name not in {one.database for one in frozen}]
    if not as_json:
        _show_plan(many, runs)
    started = time.monotonic()
    ended: list[Ended] = []
    not_begun: Sequence[str] = ()

    def arguments(name: str) -> list[str]:
        own = {**options, **({"--job": _job(name, options["--job"])} if "--job" in options else {})}
        flags = [*(["--dry-run"] if dry_run else []), *(["--during-freeze"] if freeze_is_answered(context) else [])]
        return ["run", name, *(word for pair in own.items() for word in pair), *flags]

    stopped: list[Ended] = []
    with (
        bars(enabled=not as_json) as above,
        SideBySide(platform, runs, arguments, at_once=many.at_once) as processes,
    ):
        try:
            for one in processes:
                ended.append(one)
                above(_line(_run(one)))
                progress.report("databases", done=len(ended), total=len(runs), unit="run")
        except KeyboardInterrupt:
            not_begun = processes.begin_no_more()
            stopped = processes.stop()
    found = [*broken, *frozen, *map(_run, ended)]
    found += [_run(one, stopped=True) for one in stopped]
    found += [Run(database=name, status="not begun", exit_code=3) for name in not_begun]
    found.sort(key=lambda one: one.database)
    if "--job" in options and chosen and all(one.status in ("no such job", "frozen", "broken") for one in found):
        raise NoSuchJob(job=options["--job"], hint=f"Jobs are: {', '.join(JOBS)}.")
    seconds, peak = time.monotonic() - started, peak_at_once([*ended, *stopped])
    if as_json:
        show_json(
            {
                "runs": [one.as_json() for one in found],
                "dry_run": dry_run,
                "parallel": many.at_once,
                "seconds": round(seconds, 2),
                "peak_bytes": peak,
            }
        )
    else:
        _show(found, seconds, peak, dry_run=dry_run)
    return max((one.exit_code for one in found), default=0)


def _job(database: str, job: str) -> str:
    """``quality`` and ``shop_quality`` are the same job of shop."""
    return job if job == database or job.startswith(f"{database}_") else f"{database}_{job}"


def _frozen(chosen: Sequence[Declared], job: str | None) -> Iterator[Run]:
    now = datetime.now(UTC)
    for declared in chosen:
        if job is not None and is_harmless(declared.name, _job(declared.name, job)):
            continue
        if (freeze := declared.database.frozen(now)) is not None:
            error = {"kind": "frozen", "message": f"{declared.name} is frozen {freeze}.", "hint": "--during-freeze"}
            yield Run(database=declared.name, status="frozen", exit_code=0, error=error)


def _broken(declarations: Declarations, many: Many) -> Iterator[Run]:
    """Declarations that do not hold: whose they are is not known, so an owner is only told of them."""
    for broken in declarations.broken:
        name = broken.name or broken.folder
        if name in many.without:
            continue
        if many.owner is not None:
            note(f"not looked at, because it does not hold: {broken.error}")
        else:
            yield Run(database=name, status="broken", exit_code=2, error=broken.error.as_json())


def _run(one: Ended, *, stopped: bool = False) -> Run:
    status: Status = "failed" if one.error else "succeeded"
    exit_code = one.exit_code
    if one.error and one.error["kind"] == "unknown_job":
        status, exit_code = "no such job", 0
    elif one.error and stopped:
        status = "stopped"
    return Run(
        database=one.database,
        status=status,
        exit_code=exit_code,
        seconds=one.seconds,
        peak_bytes=one.peak_bytes,
        document=None if one.error else one.document,
        error=one.error,
    )


def _show_plan(many: Many, runs: Sequence[Declared]) -> None:
    say(f"{_count(len(runs))}, {many.at_once} at a time: {', '.join(one.name for one in runs)}")
    for server, most in bounds(runs).items():
        if most < many.at_once:
            say(f"of those on {server} {most} at a time (runs.per_server)")


def _line(run: Run) -> str:
    mark = "✓" if run.exit_code == 0 else "✗"
    words = run.error["message"] if run.error else (run.document or {}).get("verdict") or ""
    return f"{mark} {run.database:<30} {run.seconds:8.2f} s  {words}"


def _show(found: Sequence[Run], seconds: float, peak: int, *, dry_run: bool) -> None:
    rows = []
    for run in found:
        said = run.as_json()
        memory = None if run.peak_bytes is None else run.peak_bytes // _MIB
        why = run.error["message"] if run.error else said["report"]
        rows.append((run.database, run.status, said["verdict"], said["seconds"], memory, why))
    say("")
    show_table(None, ("database", "run", "verdict", "seconds", "MiB", "report, or why not"), rows)
    if dry_run:
        from dbplatform.cli.run import show_plan

        for run in found:
            show_plan((run.document or {}).get("steps") or {})
    counts = {status: sum(run.status == status for run in found) for status in dict.fromkeys(r.status for r in found)}
    told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
    most = max((run.peak_bytes or 0 for run in found), default=0)
    say("")
    say(f"{bold(told)} in {seconds:.1f} s")
    say(f"memory: {most // _MIB:,} MiB in one run at most, {peak // _MIB:,} MiB in all at once (without PostgreSQL)")


def _count(number: int) -> str:
    return "1 database" if number == 1 else f"{number} databases"
