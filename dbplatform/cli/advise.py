"""``dbplatform advise``: what would make a database faster, smaller or safer; followed online, measured, taken back."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.advice.apply import Report
from dbplatform.cli.common import (
    SubVerbs,
    ask_while_frozen,
    bold,
    confirmed,
    dry_run_option,
    during_freeze_option,
    json_option,
    note,
    opened,
    platform_of,
    say,
    show_json,
    yes_option,
)
from dbplatform.ledger.advice import AdviceRecord
from dbplatform.operations import advice as advising
from dbplatform.operations.advice import Advised
from dbplatform.operations.watching import NothingToMeasure

id_argument = click.argument("advice_id", metavar="ID")


@click.group("advise", cls=SubVerbs)
def command() -> None:
    """Advice: indexes, autovacuum, bloat, sequences, settings; each with reason, evidence, SQL, lock, cost and undo."""


@command.command("list")
@click.argument("database", required=False)
@click.option("--all", "everything", is_flag=True, help="Also what was applied, undone or dismissed, or is gone.")
@json_option
@click.pass_context
def list_(context: click.Context, database: str | None, everything: bool, as_json: bool) -> int:
    """Look for advice for one database, or all. Exit 1 when one of severity warning is open.

    Nothing runs but EXPLAIN of each statement of the window, and questions to the catalog.
    """
    if database is not None:
        platform, chosen = opened(context, database)
        found = [advising.advise(platform, chosen, everything=everything)]
    else:
        platform, found = platform_of(context), []
        for declared in platform.declarations.databases:
            try:
                found.append(advising.advise(platform, declared, everything=everything))
            except NothingToMeasure as nothing:
                note(f"{declared.name}: {nothing.message}")
    if as_json:
        show_json({"databases": [one.as_json() for one in found]})
    else:
        for one in found:
            _show(one)
    return 1 if any(one.warnings for one in found) else 0


@command.command()
@id_argument
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def apply(context: click.Context, advice_id: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Follow an advice online, and measure its statements before and after; of no use, the undo is proposed.

    Run again after a kill it ends what was begun. Asks before an index is dropped.

    Lock: SHARE UPDATE EXCLUSIVE on the table (CONCURRENTLY): reads and writes go on.
    """
    platform = platform_of(context)
    known, statements = advising.plan(platform, advice_id)
    _show_plan(known, statements, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    if statements:
        ask_while_frozen(context, platform.declarations.get(known.database))
    if known.action is not None and known.action["verb"] == "drop_index" and statements:
        confirmed(f"Drop the index {known.subject}?", yes=yes)
    report = advising.apply(platform, advice_id)
    show_json(report.as_json()) if as_json else _show_report(report)


@command.command()
@id_argument
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def undo(context: click.Context, advice_id: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take back what an advice has changed; run again after a kill it ends what was begun.

    Lock: SHARE UPDATE EXCLUSIVE on the table (CONCURRENTLY): reads and writes go on.
    """
    platform = platform_of(context)
    known, statements = advising.plan_back(platform, advice_id)
    _show_plan(known, statements, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    if statements:
        ask_while_frozen(context, platform.declarations.get(known.database))
        confirmed(f"Take back {known.kind.replace('_', ' ')} {known.subject}?", yes=yes)
    report = advising.undo(platform, advice_id)
    if as_json:
        show_json(report.as_json())
    else:
        say("undone" if report.changed else "it was undone before")


@command.command()
@id_argument
@click.option("--reason", required=True, help="Why it is not wanted, for whoever reads it later.")
@dry_run_option
@json_option
@click.pass_context
def dismiss(context: click.Context, advice_id: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Note that an advice is not wanted: it is not shown again, unless by --all."""
    platform = platform_of(context)
    found = advising.plan_dismissal(platform, advice_id) if dry_run else advising.dismiss(platform, advice_id, reason)
    if as_json:
        show_json({"advice": _json(found), **({"changed": False} if dry_run else {})})
    else:
        done = "would be" if dry_run else "is"
        say(f"{found.id} ({found.kind.replace('_', ' ')} {found.subject}) {done} dismissed: {reason}")


def _json(found: AdviceRecord) -> dict[str, Any]:
    from dbplatform.advice.record import as_json

    return as_json(found)


def _show(found: Advised) -> None:
    say(bold(f"{found.database}: {len(found.advice)} advice" if found.advice else f"{found.database}: no advice"))
    for one in found.advice:
        state = "" if one.state == "open" else f" [{one.state}]"
        say(f"{one.id}  {one.severity}  {one.kind.replace('_', ' ')}  {one.subject}{state}")
        say(f"  {one.reason}")
        say(f"  {one.sql}{';' if one.action is not None else ''}")
        say(f"  lock: {one.lock}; cost: {one.cost}; {one.confidence}; {one.document}")
        if one.undo_sql is not None:
            say(f"  undo: {one.undo_sql};")
        if one.note:
            say(f"  dismissed: {one.note}")
        if "gain" in one.receipt:
            say(f"  {_gain(one.receipt)}")
    for kind, reason in found.findings.unexamined.items():
        say(f"not examined: {kind.replace('_', ' ')}: {reason}")


def _show_plan(known: AdviceRecord, statements: tuple[str, ...], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        if dry_run:
            show_json({"advice": _json(known), "statements": list(statements), "changed": False})
        return
    say(f"{known.kind.replace('_', ' ')} {known.subject} of {known.database}: {known.reason}")
    for one in statements:
        say(f"  {one};")
    say(f"  lock: {known.lock}; cost: {known.cost}")
    if dry_run:
        say("nothing was changed")


def _show_report(report: Report) -> None:
    if not report.changed:
        say("it was applied before")
        return
    receipt = report.record.receipt
    say(f"done in {receipt['seconds']:.1f} s; {_gain(receipt)}")
    before = {one["queryid"]: one for one in receipt.get("before", ())}
    for one in receipt.get("after", ()):
        old = before.get(one["queryid"])
        if old is not None:
            say(f"  {one['queryid']}: cost {old['cost']:,.0f} -> {one['cost']:,.0f}, {_times(old, one)}")
    if report.proposes_undo:
        say(f"It was of no use. Take it back: dbplatform advise undo {report.record.id}")


def _times(old: dict[str, Any], new: dict[str, Any]) -> str:
    if old["ms"] is None or new["ms"] is None:
        return f"not timed: {new.get('not_timed') or old.get('not_timed')}"
    return f"{old['ms']:,.3f} ms -> {new['ms']:,.3f} ms (median of {new['runs']})"


def _gain(receipt: dict[str, Any]) -> str:
    if receipt.get("gain") is None:
        return "no statement shows what it was good for"
    if abs(receipt["gain"]) < 0.0005:
        return "the statements of its table cost as much as before"
    return f"its statements cost {abs(receipt['gain']):.1%} {'less' if receipt['gain'] > 0 else 'more'}"
