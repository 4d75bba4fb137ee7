"""``dbplatform roles review``: who may do what in a database, what is new since the last review, and a note of one."""

from __future__ import annotations

from collections.abc import Callable

import click

from dbplatform.cli.audited import show_access
from dbplatform.cli.common import (
    bold,
    confirmed,
    database_argument,
    dry_run_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.ledger.acting import user
from dbplatform.monitoring.audits.access import Access
from dbplatform.operations import access_reviews
from dbplatform.operations.access_reviews import Reviewed
from dbplatform.reporting.words import counted

#: So many objects of a right are named in a terminal; --json has all.
_NAMED = 6


@click.command("review")
@database_argument
@click.option("--comment", help="Note that this was reviewed: what you found, and what is done about it.")
@click.option("--by", default=None, help="Who has reviewed it; by default the user of this machine.")
@dry_run_option
@click.option("--yes", is_flag=True, help="Do not ask whether what is other than in the last review was read.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str,
    comment: str | None,
    by: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """The access review: roles, members, rights on objects and later ones, owners, passwords' age, unused logins.

    Exit 1 while rights are other than when somebody last reviewed them, or nobody has; --comment notes a review, and
    asks first where they are other.
    """
    platform, declared = opened(context, database)
    found = access_reviews.review_access(platform, declared)
    if not as_json:
        _show(found)
    if comment is not None and not dry_run:
        by, comment = access_reviews.signature(found, by=by if by is not None else user(), comment=comment)
        if as_json or found.last is None:
            # The tables name a few objects of each right.
            _show_other(found, note)
        confirmed(_question(found, by), yes=yes or not found.waits)
        found = access_reviews.note_review(platform, found, by=by, comment=comment)
        if not as_json:
            say(f"{database}: noted that {by} has reviewed it")
    if as_json:
        show_json(found.as_json())
    return 1 if found.waits else 0


def _question(found: Reviewed, by: str) -> str:
    if found.last is None:
        return f"Note that {by} has read all of it, {counted(len(found.gained), 'right')}?"
    return f"Note that {by} has read what is other: {_other(found)}?"


def _other(found: Reviewed) -> str:
    return f"{counted(len(found.gained), 'right')} gained, {len(found.lost)} lost"


def _show_other(found: Reviewed, show: Callable[[str], None]) -> None:
    for sign, rights in (("+", found.gained), ("-", found.lost)):
        for right in rights:
            show(f"{sign} {right}")


def _show(found: Reviewed) -> None:
    access = found.access
    show_access(access.roles)
    _show_use(access)
    show_table(
        "what was granted",
        ("role", "may", "on", "objects"),
        [(one["role"], ", ".join(one["privileges"]), one["kind"], _some(one["objects"])) for one in access.grants],
    )
    show_table(
        "what is owned",
        ("role", "owns", "objects"),
        [(one["role"], one["kind"], _some(one["objects"])) for one in access.owned],
    )
    for what, reason in access.not_examined.items():
        say(f"not examined: {what}: {reason}")
    if access.unread:
        say(f"{access.database}: {bold('not all rights could be read')}: what is new is not known")
        return
    if found.last is None:
        say(f"{access.database}: {bold('nobody has reviewed it yet')}; when you have: --comment TEXT")
        return
    _show_other(found, say)
    by = f"the review of {found.last.at:%Y-%m-%d %H:%M} UTC by {found.last.by}: {found.last.comment}"
    told = f"{_other(found)} since" if found.waits else "as in"
    say(f"{access.database}: {bold(told)} {by}")


def _show_use(access: Access) -> None:
    since = f" since {access.counted_since:%Y-%m-%d %H:%M} UTC" if access.counted_since else ""
    show_table(
        "passwords and use",
        ("login", "password", "the same since", "until", "sessions now", f"statements here{since}", "used"),
        [
            (
                role["role"],
                role["password"],
                f"{role['unchanged_since']:%Y-%m-%d}" if role["unchanged_since"] else None,
                f"{role['valid_until']:%Y-%m-%d}" if role["valid_until"] else None,
                role["sessions"],
                role["statements"],
                {True: "yes", False: "no", None: "not known"}[role["used"]],
            )
            for role in access.roles
            if role["login"]
        ],
    )


def _some(objects: list[str]) -> str:
    more = f" and {len(objects) - _NAMED:,} more" if len(objects) > _NAMED else ""
    return f"{', '.join(objects[:_NAMED])}{more}"
