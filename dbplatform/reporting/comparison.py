"""What changed since the run before: each check against its own newest earlier outcome.

A run over one table only says nothing of the others, so a check is compared with the newest earlier run that had it,
not with whatever run came last.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbplatform.reporting.causes import BAD
from dbplatform.reporting.evidence import CheckEvidence, RunEvidence
from dbplatform.reporting.words import counted, utc


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The checks of a run by what became of them."""

    new: tuple[CheckEvidence, ...]
    """Bad now, and not before or never run before."""
    fixed: tuple[CheckEvidence, ...]
    """Bad before, passed now."""
    still: tuple[CheckEvidence, ...]
    """Bad before and now."""
    gone: tuple[tuple[str, str], ...]
    """Table and name of checks that are no longer made."""

    @property
    def nothing(self) -> bool:
        """No check changed for better or worse."""
        return not (self.new or self.fixed or self.still or self.gone)


def compare(run: RunEvidence) -> Difference:
    """Sort the checks of a run by what became of them since their newest earlier outcome."""
    new: list[CheckEvidence] = []
    fixed: list[CheckEvidence] = []
    still: list[CheckEvidence] = []
    into = {"new": new, "fixed": fixed, "still failing": still}
    for check in run.checks:
        kind = kind_of_change(check)
        if kind is not None:
            into[kind].append(check)
    return Difference(new=tuple(new), fixed=tuple(fixed), still=tuple(still), gone=run.gone)


def change(check: CheckEvidence) -> str:
    """How a check that is still bad moved: ``+120 rows``, ``no change``, ``was failed, now errored``."""
    before = check.before
    if before is None:
        return "first run"
    if before.status != check.status:
        return f"was {before.status}, now {check.status}"
    if before.failed_rows is None or check.failed_rows is None:
        return "no change"
    difference = check.failed_rows - before.failed_rows
    if difference == 0:
        return "no change"
    return f"{difference:+,} row{'' if abs(difference) == 1 else 's'}"


def moved(check: CheckEvidence) -> bool:
    """Whether a check that is still bad is bad in another way, or by another number of rows, than before."""
    return change(check) != "no change"


def since(check: CheckEvidence) -> str:
    """For how long a check has been bad: ``for 3 runs, since 2026-11-08 02:00:00 UTC (run 5fd07966)``."""
    onset = check.onset
    if onset is None:
        return ""
    first = f"{utc(onset.first.started_at)} (run {onset.first.run_id[:8]})"
    if onset.complete:
        return f"for {counted(onset.runs, 'run')}, since {first}"
    return f"for {counted(onset.runs, 'run')} or more, since {first} or earlier"


def kind_of_change(check: CheckEvidence) -> str | None:
    """``new``, ``fixed`` or ``still failing``; none for a check that is as good as it was."""
    was_bad = check.before is not None and check.before.status in BAD
    if check.bad:
        return "still failing" if was_bad else "new"
    return "fixed" if was_bad and check.status == "passed" else None
