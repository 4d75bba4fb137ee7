"""``dbplatform cleanup``: what killed work, time and others have left, and its end."""

from __future__ import annotations

from collections.abc import Iterable

import click

from dbplatform.backups.files import size_words
from dbplatform.cli.common import (
    ask_while_frozen,
    bars,
    confirmed,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.maintenance.cleanup.leftovers import CleanupPlan, Leftover
from dbplatform.operations import cleanup

_FATES = {"remove": "goes", "leave": "stays", "tell": "for you"}


@click.command()
@database_argument
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def command(context: click.Context, database: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove what is left over: indexes, databases, files, history. Exit 1 where something is for a person to decide.

    Lock: SHARE UPDATE EXCLUSIVE on the table of an invalid index. Exit 3 where something could not be looked at, or
    not be removed; the rest is done.
    """
    from dbplatform.reporting.retention import cleanup_part

    platform, declared = opened(context, database)
    more = cleanup_part(platform, declared)
    with bars():
        planned = cleanup.plan(platform, declared, more=more)
    if dry_run:
        show_json(planned.as_json()) if as_json else _show(planned)
        return _code(planned.unknown, planned.told)
    if not as_json:
        _show(planned)
    if planned.due:
        ask_while_frozen(context, declared)
        confirmed(f"Remove {_count(len(planned.due))} for good?", yes=yes)
    with bars():
        report = cleanup.apply(platform, declared, planned, more=more)
    if as_json:
        show_json(report.as_json())
    else:
        for problem in report.problems:
            note(problem)
        if planned.due:
            size = sum(one.bytes or 0 for one in report.removed)
            say(f"removed {_count(len(report.removed))}{f', {size_words(size)}' if size else ''}")
    return _code(report.problems, planned.told)


def _code(problems: Iterable[str], told: Iterable[Leftover]) -> int:
    return 3 if any(True for _ in problems) else 1 if any(True for _ in told) else 0


def _count(number: int) -> str:
    return f"{number} leftover{'' if number == 1 else 's'}"


def _show(planned: CleanupPlan) -> None:
    if planned.leftovers:
        show_table(
            None,
            ("kind", "name", "", "size", "why"),
            [
                (
                    *(one.kind, one.name, _FATES[one.fate]),
                    size_words(one.bytes) if one.bytes else "",
                    f"{one.reason}{f'. {one.advice}' if one.advice else ''}",
                )
                for one in planned.leftovers
            ],
        )
    elif not planned.unknown:
        say("nothing is left over")
    for kind, reason in planned.unknown.items():
        note(f"{kind}: could not be looked at: {reason}")
