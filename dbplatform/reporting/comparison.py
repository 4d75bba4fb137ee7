"""What changed since the run before: each check against its own newest earlier outcome.

A run over one table only says nothing of the others, so a check is compared with the newest earlier run that had it,
not with whatever run came last.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbplatform.reporting.evidence import BAD, HISTORY_RUNS, CheckEvidence, RunEvidence
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
    for check in run.checks:
        was_bad = check.before is not None and check.before.status in BAD
        if check.bad:
            (still if was_bad else new).append(check)
        elif was_bad and check.status == "passed":
            fixed.append(check)
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
    """For how long a check has been bad without a break: ``for 3 runs, since 2026-11-08 02:00:00 UTC``."""
    bad = 0
    for point in reversed(check.history):
        if point.status not in BAD:
            break
        bad += 1
    first = utc(check.history[-bad].started_at)
    if bad == len(check.history) == HISTORY_RUNS:
        return f"for {bad} runs or more, since {first} or earlier"
    return f"for {counted(bad, 'run')}, since {first}"
