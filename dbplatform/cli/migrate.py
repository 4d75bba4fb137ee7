"""``dbplatform migrate``: plan, apply, undo and test a database's migrations; show drift; show and mend their history.

What only some verbs need is imported by them: ``apply`` with nothing to do runs on every start of a service. One
module, because each verb is its options and a few lines, and all share how a plan and its errors are printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from dbplatform.cli.common import (
    DURATION,
    Many,
    SubVerbs,
    ask_while_frozen,
    bars,
    bold,
    confirmed,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    many_options,
    names_in,
    note,
    opened,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.errors import PlatformError, UsageError
from dbplatform.operations import schema

if TYPE_CHECKING:
    from dbplatform.operations.rehearsal import ObservedPlan


@click.group("migrate", cls=SubVerbs)
def command() -> None:
    """Migrations by Flyway's names, with Flyway's history table."""


@command.command()
@database_argument
@click.option("--target", help="Stop after this version.")
@click.option("--quick", is_flag=True, help="Do not try it out on an empty copy: locks and rewrites stay unknown.")
@json_option
@click.pass_context
def plan(context: click.Context, database: str, target: str | None, quick: bool, as_json: bool) -> int:
    """What would be applied, and what each statement would lock and rewrite. Exit 2 with a file that is not SQL."""
    from dbplatform.operations import schema_lint

    platform, declared = opened(context, database)
    if quick:
        document, observed = schema.plan(platform, declared, target=target).as_json(), None
    else:
        from dbplatform.operations import rehearsal

        with bars():
            observed = rehearsal.plan(platform, declared, target=target)
        document = observed.as_json()
    not_linted = schema_lint.fill(platform, declared, document)
    if not_linted:
        note(f"Not linted: {not_linted}")
    mistake = _mistake(document, observed)
    if as_json:
        show_json({**document, "error": mistake.as_json()} if mistake else document)
        return mistake.exit_code if mistake else 0
    _show(document)
    if observed is not None:
        from dbplatform.cli.rehearsed import show_observed

        show_observed(observed)
    for migration in document["migrations"]:
        _show_findings(migration["findings"] or ())
    if mistake:
        raise mistake
    return 0


def _mistake(document: dict[str, Any], observed: ObservedPlan | None) -> PlatformError | None:
    """A file that cannot be parsed: by PostgreSQL's word, and by lint's on what PostgreSQL was not asked."""
    if observed is not None and observed.mistake is not None:
        return observed.mistake
    ran = {run.script for run in observed.trial.migrations} if observed is not None and observed.trial else set()
    for migration in document["migrations"]:
        settled = migration["status"] != "pending" or migration["script"] in ran
        for found in () if settled else migration["findings"] or ():
            if found["rule"] == "syntax-error" and found["status"] == "open":
                hint = f"Mend it, or accept the finding {found['rule']} where PostgreSQL knows better."
                return UsageError(f"{found['message'].rstrip('.')}.", hint=hint, file=found["file"], line=found["line"])
    return None


@command.command()
@database_argument
@click.option("--target", help="Stop after this version.")
@json_option
@click.pass_context
def rehearse(context: click.Context, database: str, target: str | None, as_json: bool) -> int:
    """Run what is pending on the newest backup, in a scratch database. Exit 1 when it fails or breaks a statement."""
    from dbplatform.cli.rehearsed import show_rehearsal
    from dbplatform.operations import rehearsal

    platform, declared = opened(context, database)
    with bars():
        found = rehearsal.rehearse(platform, declared, target=target)
    if found is None:
        planned = schema.plan(platform, declared, target=target).as_json()
        show_json({**planned, "passed": True, "basis": None}) if as_json else _show(planned)
        return 0
    show_json(found.as_json()) if as_json else show_rehearsal(found)
    return 0 if found.passed else 1


@command.command()
@many_options
@click.option("--target", help="Stop after this version.")
@click.option("--canary", metavar="NAME[,NAME]", help="Of many: these first; the others when these are well.")
@click.option("--soak", type=DURATION, help="How long canaries are watched before the others begin: '10 minutes'.")
@dry_run_option
@during_freeze_option
@click.option("--files", "digest", hidden=True, help="Of a roll-out: refuse files that are not those of this digest.")
@json_option
@click.pass_context
def apply(
    context: click.Context,
    database: str | None,
    many: Many | None,
    target: str | None,
    canary: str | None,
    soak: timedelta | None,
    dry_run: bool,
    digest: str | None,
    as_json: bool,
) -> int:
    """Apply what is pending; a no-op when nothing is.

    Of many databases (--all, --owner) the canaries come first, and no other begins after the first failure. The same
    command goes on where it stood.
    """
    if many is not None:
        from dbplatform.cli.rollout import migrate_many

        return migrate_many(context, many, target, names_in(canary), soak or timedelta(0), dry_run, as_json)
    if canary is not None or soak is not None:
        raise UsageError("--canary and --soak are for many databases.", hint="Write --all, or --owner.")
    assert database is not None
    platform, declared = opened(context, database)
    files = schema.read(declared, digest=digest)
    planned = schema.plan(platform, declared, target=target, files=files)
    if dry_run or not (planned.pending or planned.callbacks):
        show_json(planned.as_json()) if as_json else _show(planned.as_json())
        return 0
    if planned.pending and not as_json:
        _show(planned.as_json())
    if planned.pending:
        ask_while_frozen(context, declared)
    with bars():
        report = schema.apply(platform, declared, target=target, files=files).as_json()
    if as_json:
        show_json(report)
        return 0
    if planned.callbacks:
        note(f"{database}: ran its callbacks {', '.join(callback.script for callback in planned.callbacks)}")
    _show(report)
    return 0


@command.command("rollouts")
@json_option
@click.pass_context
def show_rollouts(context: click.Context, as_json: bool) -> None:
    """Migrations of many databases: what is done, failed and untouched, the newest first."""
    from dbplatform.cli.rollout import list_rollouts

    list_rollouts(context, as_json)


@command.command()
@database_argument
@click.option("--target", help="Undo every version down to and including this one; by default the newest alone.")
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def undo(context: click.Context, database: str, target: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Undo versions by their U files, the newest applied first. What they drop is gone."""
    from dbplatform.operations import schema_care

    platform, declared = opened(context, database)
    planned = schema_care.plan_undo(platform, declared, target=target)
    if dry_run or not planned.pending:
        show_json(planned.as_json()) if as_json else _show(planned.as_json(), verb="to undo")
        return
    if not as_json:
        _show(planned.as_json(), verb="to undo")
    ask_while_frozen(context, declared)
    scripts = ", ".join(pending.script for pending in planned.pending)
    confirmed(f"Run {scripts} on {database}?", yes=yes)
    with bars():
        report = schema_care.undo(platform, declared, target=target).as_json()
    show_json(report) if as_json else _show(report)


@command.command()
@database_argument
@click.option("--all", "every", is_flag=True, help="Every file, also applied ones; needs no server.")
@json_option
@click.pass_context
def lint(context: click.Context, database: str, every: bool, as_json: bool) -> int:
    """What blocks traffic or breaks clients in the pending files, by squawk. Exit 1 with open findings."""
    from dbplatform.operations import schema_lint

    platform, declared = opened(context, database)
    report = schema_lint.lint(platform, declared, every=every)
    if as_json:
        show_json(report.as_json())
        return 1 if report.open else 0
    _show_findings(report.as_json()["findings"])
    judged = f"for PostgreSQL {report.server_major}" if report.server_major else "for the newest PostgreSQL"
    which = f"{'files' if every else 'pending files'}: {report.files}"
    say(f"{database}: {len(report.open)} open, {len(report.accepted)} accepted ({which}, judged {judged})")
    return 1 if report.open else 0


@command.command()
@database_argument
@json_option
@click.pass_context
def test(context: click.Context, database: str, as_json: bool) -> int:
    """Every version up, down and up again in a scratch database. Exit 1 when an undo file does not undo."""
    from dbplatform.operations import schema_care

    platform, declared = opened(context, database)
    with bars():
        found = schema_care.test(platform, declared)
    if as_json:
        show_json(found.as_json())
        return 0 if found.passed else 1
    show_table(
        f"{database}: up, down and up again {'gives the same schema' if found.passed else 'DOES NOT give the same'}",
        ("version", "script", "result"),
        [(str(v.version), v.script, v.status) for v in found.versions],
    )
    for version in found.versions:
        if version.error:
            say(f"  {version.error}")
        for when, differences in (("after its undo", version.after_undo), ("applied again", version.after_redo)):
            for difference in differences:
                say(f"  {version.script} {when}: {difference}")
    for difference in found.whole_way:
        say(f"  after the whole way: {difference}")
    if found.without_undo:
        note(f"Without an undo file: {', '.join(found.without_undo)}")
    return 0 if found.passed else 1


@command.command()
@database_argument
@json_option
@click.pass_context
def drift(context: click.Context, database: str, as_json: bool) -> int:
    """How the schema differs from the one that its migrations make. Exit 1 when it does."""
    from dbplatform.operations import schema_drift

    platform, declared = opened(context, database)
    with bars():
        found = schema_drift.drift(platform, declared)
    document = found.as_json()
    if as_json:
        show_json(document)
    else:
        _show_drift(document)
    return 1 if found.differences else 0


def _show_drift(document: dict[str, Any]) -> None:
    database, differences = document["database"], document["differences"]
    at = f"at version {document['version'] or 'none'}"
    for left_out in document["left_out"]:
        made = ", ".join(left_out["objects"]) or "nothing"
        note(f"{database}: {left_out['script']} is pending; not compared is what it makes: {made}")
    for words in document["notes"]:
        note(f"{database}: {words}")
    if not differences:
        say(f"{database}: the schema is what its migrations make, {at}")
        return
    count = "1 difference" if len(differences) == 1 else f"{len(differences)} differences"
    say(bold(f"{database}: {count} from what its migrations make, {at}"))
    for group in ("missing", "different", "only here"):
        told = [difference for difference in differences if _group(difference) == group]
        if told:
            say(f"{group}:")
        for difference in told:
            say(f"  {difference['sentence']}")
    fixes = [difference["fix_sql"] for difference in differences if difference["fix_sql"]]
    if fixes:
        say(bold(f"SQL that mends {len(fixes)} of them and drops no data; read it before you run it:"))
        say("\n".join(fixes))


def _group(difference: dict[str, Any]) -> str:
    if difference["part"] is not None:
        return "different"
    return "missing" if difference["actual"] is None else "only here"


@command.command()
@database_argument
@json_option
@click.pass_context
def history(context: click.Context, database: str, as_json: bool) -> None:
    """The history table: what was applied, when, by whom."""
    rows = [row.as_json() for row in schema.history(*opened(context, database))]
    if as_json:
        show_json({"database": database, "history": rows})
        return
    show_table(
        None,
        ("rank", "version", "description", "type", "script", "by", "on", "ms", "success"),
        [
            (
                r["installed_rank"],
                r["version"],
                r["description"],
                r["type"],
                r["script"],
                r["installed_by"],
                r["installed_on"],
                r["execution_time"],
                r["success"],
            )
            for r in rows
        ],
    )


@command.command()
@database_argument
@click.option("--version", default="1", show_default=True, help="The version that the database has now.")
@click.option("--description", default="<< Flyway Baseline >>", show_default=True, help="The row's words.")
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def baseline(
    context: click.Context, database: str, version: str, description: str, dry_run: bool, as_json: bool
) -> None:
    """Take over a database that other means have migrated: versions up to this one count as applied."""
    from dbplatform.operations import schema_care

    platform, declared = opened(context, database)
    planned = schema_care.plan_baseline(platform, declared, version=version, description=description)
    if not as_json:
        for found in planned.taken_over:
            say(f"{database} was migrated by {found}; that table stays as it is")
    if not dry_run and not planned.written:
        ask_while_frozen(context, declared)
        planned = schema_care.baseline(platform, declared, version=version, description=description)
    if as_json:
        show_json(planned.as_json())
    else:
        say(f"{database}: {'is' if planned.written else 'would be'} at version {planned.version} by its baseline")


@command.command()
@database_argument
@click.option("--checksum", "checksums", multiple=True, metavar="SCRIPT", help="Give its row the file's checksum.")
@click.option("--did", multiple=True, metavar="SCRIPT", help="Its statement in doubt had done its work.")
@click.option("--again", multiple=True, metavar="SCRIPT", help="Its statement in doubt is to run again.")
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def repair(
    context: click.Context,
    database: str,
    checksums: tuple[str, ...],
    did: tuple[str, ...],
    again: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Mend the history: failed rows go, missing files are marked as deleted, named files get their checksum."""
    from dbplatform.operations import schema_care

    platform, declared = opened(context, database)
    planned = schema_care.plan_repair(platform, declared, checksums=checksums, did=did, again=again)
    if not as_json:
        _show_repair(planned.as_json())
    if not dry_run and not planned.empty:
        ask_while_frozen(context, declared)
        planned = schema_care.repair(platform, declared, checksums=checksums, did=did, again=again)
        if not as_json:
            say(f"{database}: done")
    if as_json:
        show_json(planned.as_json())


def _show_repair(document: dict[str, Any]) -> None:
    lines = [f"remove the failed row of {script}" for script in document["removed"]]
    lines += [f"mark {script} as deleted: its file is gone" for script in document["deleted"]]
    lines += [f"{r['script']}: checksum {r['checksum']} becomes {r['becomes']}" for r in document["realigned"]]
    lines += [f"{script}: its statement in doubt counts as done" for script in document["did"]]
    lines += [f"{script}: its statement in doubt will run again" for script in document["again"]]
    for line in lines or ["nothing to mend"]:
        say(f"{document['database']}: {line}")


def _show_findings(findings: Iterable[dict[str, Any]]) -> None:
    """The open findings, each with its place as editors know it."""
    for found in findings:
        if found["status"] == "open":
            say(f"{found['file']}:{found['line']}:{found['column']}: {found['rule']}: {found['message']}")
            if found["help"]:
                say(f"  {found['help']}")


#: A longer list says nothing more to a person; ``--json`` has all of it.
_SHOWN = 20


def _show(document: dict[str, Any], *, verb: str = "pending") -> None:
    migrations = document["migrations"]
    at = f"now at version {document['current'] or 'none'}"
    for script in document.get("future", []):
        note(f"{document['database']}: {script} was applied from newer files than these")
    pending = [m for m in migrations if m["status"] == "pending"]
    if document.get("callbacks"):
        note(f"Callbacks around them: {', '.join(document['callbacks'])}")
    if pending:
        _show_files(
            f"{document['database']}: {len(pending)} {verb}, {at}",
            ("version", "description", "script"),
            [(m["version"] or "repeatable", m["description"], m["script"]) for m in pending],
        )
        return
    done = [m for m in migrations if m["status"] in ("applied", "undone")]
    if done:
        _show_files(
            f"{document['database']}: {len(done)} {done[0]['status']}, {at}",
            ("version", "description", "seconds"),
            [(m["version"] or "repeatable", m["description"], m["seconds"]) for m in done],
        )
    else:
        say(f"{document['database']}: nothing to do, at version {document['current'] or 'none'}")


def _show_files(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    show_table(title, columns, rows[:_SHOWN])
    if len(rows) > _SHOWN:
        say(f"and {len(rows) - _SHOWN} more")
