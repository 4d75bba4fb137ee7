"""``dbplatform bench``: declared queries and pgbench scripts timed, and compared by verdicts outside the noise."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.benchmarking.model import Report, Result
from dbplatform.cli.common import (
    SubVerbs,
    bars,
    bold,
    database_argument,
    dry_run_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations import benchmarks
from dbplatform.operations.benchmark_wanted import BASELINE, Mode, Plan, Wanted, plan
from dbplatform.operations.platform import Platform

name_option = click.option("--name", "names", multiple=True, help="Only this benchmark; may be repeated.")
clients_option = click.option(
    "--clients", type=click.IntRange(1, 1000), help="So many sessions at a time: of scripts, and callers of a pool."
)
seconds_option = click.option("--seconds", type=click.FloatRange(0.1, 3600), help="How long each is measured at most.")
production_option = click.option("--yes", is_flag=True, help="Measure a production server outside of its window.")


@click.group("bench", cls=SubVerbs)
def command() -> None:
    """Benchmarks: declared queries and pgbench scripts, in turns with what they are compared with.

    Exit 1 when one is worse, or misses its target; 3 when one could not be run.
    """


@command.command()
@database_argument
@name_option
@clients_option
@seconds_option
@click.option(
    "--baseline", is_flag=False, flag_value=BASELINE, help=f"Keep the run as a baseline. [default name: {BASELINE}]"
)
@click.option("--pool", is_flag=True, help="Measure the declared pool by its size instead, against a connection each.")
@production_option
@dry_run_option
@json_option
@click.pass_context
def run(
    context: click.Context,
    database: str,
    names: tuple[str, ...],
    clients: int | None,
    seconds: float | None,
    baseline: str | None,
    pool: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Time what is declared, in turns with a yardstick: work of the processor that tells how fast the machine is.

    What only reads runs in the database, read only; what writes runs on a copy restored from the newest backup.

    Lock: as the statements; no row is changed.
    """
    if pool and baseline is not None:
        raise UsageError("--baseline and --pool exclude each other: sizes of a pool are compared with each other.")
    wanted = Wanted(
        mode="pool" if pool else "run", names=names, clients=clients, seconds=seconds, baseline=baseline, yes=yes
    )
    return _go(*opened(context, database), wanted, dry_run=dry_run, as_json=as_json)


@command.command()
@database_argument
@click.option("--to", help=f"The baseline, or the beginning of a run's id, to compare with. [default: {BASELINE}]")
@click.option("--setting", "settings", multiple=True, metavar="NAME=VALUE", help="B has this setting; may be repeated.")
@click.option("--index", metavar="SQL", help="B is a copy with this index: CREATE INDEX ...")
@click.option("--migration", metavar="VERSION", help="B is a copy with the migrations up to this version.")
@name_option
@clients_option
@seconds_option
@production_option
@dry_run_option
@json_option
@click.pass_context
def compare(
    context: click.Context,
    database: str,
    to: str | None,
    settings: tuple[str, ...],
    index: str | None,
    migration: str | None,
    names: tuple[str, ...],
    clients: int | None,
    seconds: float | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compare with a baseline; or two sides in turns: with a setting, an index, a migration, and without.

    Index and migration are tried on two copies restored from the newest backup, never in the database itself.

    Lock: as the statements; no row is changed.
    """
    modes: list[tuple[Mode, Any]] = [
        ("baseline", to), ("settings", settings or None), ("index", index), ("migration", migration)
    ]  # fmt: skip
    given = [mode for mode, value in modes if value is not None]
    if len(given) > 1:
        raise UsageError("--to, --setting, --index and --migration exclude each other: one comparison has one cause.")
    wanted = Wanted(
        mode=given[0] if given else "baseline",
        names=names,
        clients=clients,
        seconds=seconds,
        to=to or BASELINE,
        settings=_settings(settings),
        index=index,
        migration=migration,
        yes=yes,
    )
    return _go(*opened(context, database), wanted, dry_run=dry_run, as_json=as_json)


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{one!r} is no setting.", hint="Write NAME=VALUE, such as work_mem=64MB.")
        found[name.strip()] = value.strip()
    return found


def _go(platform: Platform, declared: Declared, wanted: Wanted, *, dry_run: bool, as_json: bool) -> int:
    planned = plan(platform, declared, wanted)
    if dry_run:
        show_json(planned.as_json()) if as_json else _show_plan(planned)
        return 0
    if not as_json:
        note(f"{planned.database}: {planned.words}; up to {planned.seconds:,.0f} s")
    from dbplatform.reporting import benchmarks as page

    with bars(enabled=not as_json):
        report = benchmarks.measure(platform, declared, wanted)
    written = page.write(platform, declared, report)
    if as_json:
        show_json({**report.as_json(), "page": written})
    else:
        _show(report, page.headline(report))
        say(f"page: {written}")
    if report.errored:
        return 3
    return 1 if report.bad else 0


def _show_plan(planned: Plan) -> None:
    say(f"{planned.database}: {planned.words}")
    rows = [(one["name"], one["kind"], one["clients"], one["place"], one["target_ms"]) for one in planned.benchmarks]
    if rows:
        show_table(None, ("benchmark", "kind", "clients", "on", "target ms"), rows)
    say(f"up to {planned.seconds:,.0f} s, {planned.connections} connections; nothing was run")


def _show(report: Report, headline: str) -> None:
    say(bold(f"{report.database}: {headline}"))
    if report.kind == "compare":
        say(f"A: {report.sides[0]}; B: {report.sides[1]}")
    elif report.against is not None:
        say(f"against {report.against}")
    if report.pool:
        columns = (
            "mode",
            "callers",
            "calls/s",
            "wait ms",
            "wait p95 ms",
            "call ms",
            "refused",
            "a call against one each",
        )
        show_table(None, columns, [(
            one["mode"], one["callers"], one["per_second"], one["wait_p50_ms"], one["wait_p95_ms"], one["call_p50_ms"],
            one["refused"], _verdict(one["comparison"]) if one["comparison"] else "",
        ) for one in report.pool])  # fmt: skip
    if report.results:
        shown = ("benchmark", "median ms", "p95 ms", "tps", "target", "rounds", "verdict")
        show_table(None, shown, [_row(one) for one in report.results])
    for one in report.errored:
        say(f"{one.name}: {one.error}")
    for each in report.notes:
        say(f"- {each}")
    if report.baseline is not None:
        say(f"kept; to compare with it: dbplatform bench compare {report.database} --to {report.baseline}")


def _row(one: Result) -> tuple[Any, ...]:
    target = f"{one.target_ms:g} ms {one.target or ''}" if one.target_ms is not None else None
    said = (
        "could not be run" if one.error is not None else _verdict(one.comparison.as_json() if one.comparison else None)
    )
    return one.name, one.ms, one.p95_ms, one.tps, target, len(one.a), said


def _verdict(found: dict[str, Any] | None) -> str:
    """``worse: +20.3 % (+15.1 to +25.9), noise 2.1 %``."""
    if found is None:
        return "measured"
    if found["change"] is None:
        return f"{found['verdict']}: {found['reason']}"
    low, high = (f"{100 * found[end]:+.1f}" if found[end] is not None else "?" for end in ("low", "high"))
    words = f"{found['verdict']}: {100 * found['change']:+.1f} % ({low} to {high}), noise {100 * found['noise']:.1f} %"
    return f"{words}; {found['reason']}" if found["reason"] else words
