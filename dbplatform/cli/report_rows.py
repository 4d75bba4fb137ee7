"""``dbplatform report rows``: the failing rows that a check left in the ledger, shown or written to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dbplatform.cli.common import database_argument, json_option, note, opened, show_json
from dbplatform.errors import UsageError
from dbplatform.operations import checks
from dbplatform.quality.export import KeptRows, new_file, rows_of, write_csv, write_parquet


class ParquetNeedsAFile(UsageError):
    """Parquet cannot be shown on a terminal."""


@click.command("rows")
@database_argument
@click.option("--check", required=True, help="The check, by its name.")
@click.option("--table", help="Its table, where checks of several tables have that name.")
@click.option("--run", "run_id", help="The run; by default the newest that had the check.")
@click.option("--format", "form", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file; by default standard output.")
@click.option("--limit", default=1_000, show_default=True, help="With --json: how many rows the document holds.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str,
    check: str,
    table: str | None,
    run_id: str | None,
    form: str,
    output: Path | None,
    limit: int,
    as_json: bool,
) -> None:
    """The failing rows of a check: keys and offending values, masked where that is declared."""
    if form == "parquet" and output is None and (as_json or sys.stdout.isatty()):
        raise ParquetNeedsAFile(hint="Name a file: --output rows.parquet.")
    platform, declared = opened(context, database)
    kept = checks.kept_rows(platform, declared, check, table=table, run_id=run_id)
    write = write_csv if form == "csv" else write_parquet
    if output is not None:
        with new_file(output) as out:
            write(platform.ledger, kept, out)
    elif not as_json:
        write(platform.ledger, kept, sys.stdout.buffer)
        sys.stdout.flush()
    if as_json:
        rest = {"output": str(output)} if output else {"rows": rows_of(platform.ledger, kept, limit=limit)}
        show_json({"database": database, **kept.as_json(), **rest})
    else:
        note(_words(kept) + (f"; written to {output}" if output else ""))


def _words(kept: KeptRows) -> str:
    of = "" if kept.failed_rows is None else f" of {kept.failed_rows:,} failing"
    gone = f"; older ones were removed at {kept.removed_at}" if kept.removed_at else ""
    return f"{kept.check} of {kept.table} in run {kept.run_id}: {kept.kept_rows:,}{of} rows are kept{gone}"
