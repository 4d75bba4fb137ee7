"""``dbplatform health``: the score with every deduction explained; the audits of structure and security."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from dbplatform.cli.common import bold, json_option, note, opened, platform_of, say, show_json, show_table
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.monitoring.metrics import kind_of
from dbplatform.monitoring.words import value_words
from dbplatform.operations import watching
from dbplatform.operations.platform import Platform


class OneReport(UsageError):
    """{problem}."""


@click.command("health")
@click.argument("database", required=False)
@click.option("--structure", is_flag=True, help="Audit tables, indexes, foreign keys and types instead.")
@click.option("--security", is_flag=True, help="Audit TLS, passwords, roles, grants and row-level security instead.")
@json_option
@click.pass_context
def command(context: click.Context, database: str | None, structure: bool, security: bool, as_json: bool) -> int:
    """Measure the database and score it by the limits that experts use, or by its own. Exit 1 when one is breached.

    Without a database: all of them, as they were measured last. Exit 1 when a score is below its limit.

    The audits read catalogs only. Exit 1 when one finds more than notices, or could not look at everything.
    """
    if structure and security:
        raise OneReport(problem="--structure and --security are two reports", hint="Ask for one after the other.")
    if database is None:
        if structure or security:
            raise OneReport(problem="An audit needs the name of a database", hint="See: dbplatform list")
        return _fleet(platform_of(context), as_json=as_json)
    platform, declared = opened(context, database)
    if structure or security:
        return _audit(platform, declared, security=security, as_json=as_json)
    return _score(platform, declared, as_json=as_json)


def _score(platform: Platform, declared: Declared, *, as_json: bool) -> int:
    found = watching.score(declared, watching.measure(platform, declared))
    freeze = declared.database.frozen(datetime.now(UTC))
    if as_json:
        show_json({**found.as_json(), "freeze": freeze.as_json() if freeze else None})
        return 1 if found.deductions else 0
    if freeze:
        say(f"{declared.name} is frozen {freeze}")
    say(f"{declared.name}: {bold(f'{found.score} of 100')}, grade {found.grade}, by {found.judged} limits")
    for deduction in found.deductions:
        value = value_words(deduction.value, kind_of(deduction.metric).unit)
        of = (
            f" of {deduction.sample:,.0f} {deduction.sample_unit}" if deduction.sample_unit and deduction.sample else ""
        )
        say(f"  -{deduction.points} {deduction.metric}: {value}{of}, limit {deduction.limit} ({deduction.severity})")
        say(f"     {deduction.cause}")
        say(f"     {deduction.advice}")
        say(f"     {deduction.document}")
    for name, reason in found.not_judged.items():
        say(f"  not judged: {name}: {reason}")
    for missing in found.metrics.missing:
        say(f"  missing: {missing}")
    return 1 if found.deductions else 0


def _fleet(platform: Platform, *, as_json: bool) -> int:
    from dbplatform.operations.fleet import fleet

    found = fleet(platform)
    broken = platform.declarations.broken
    if as_json:
        show_json({**found.as_json(), "broken": [{"folder": one.folder, **one.error.as_json()} for one in broken]})
        return 2 if broken else int(found.below)
    now = datetime.now(UTC)
    show_table(
        None,
        ("database", "score", "grade", "limit", "worst deduction", "measured"),
        [
            (
                one.database,
                one.score,
                one.grade,
                f"{one.limit} (breached)" if one.below else one.limit,
                one.reason or (f"-{one.worst.points} {one.worst.cause}" if one.worst else "none"),
                f"{value_words((now - one.measured_at).total_seconds(), 'seconds')} ago"
                if one.measured_at
                else "never",
            )
            for one in found.databases
        ],
    )
    for one in broken:
        note(f"error: {one.error}")
    return 2 if broken else int(found.below)


def _audit(platform: Platform, declared: Declared, *, security: bool, as_json: bool) -> int:
    from dbplatform.cli.audited import show_audit
    from dbplatform.operations import audits

    found = (audits.audit_security if security else audits.audit_structure)(platform, declared)
    show_json(found.as_json()) if as_json else show_audit(found)
    return 0 if found.verdict == "passed" else 1
