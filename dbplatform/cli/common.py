"""What every verb shares: the project it works on, its output, its question before it changes something, its bars.

Results go to standard output, as words or as one JSON document; everything else goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dbplatform import progress
from dbplatform.declaration.loading import Declared
from dbplatform.declaration.project import Project
from dbplatform.errors import NotBuiltYet, UsageError
from dbplatform.operations.platform import Platform
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval

database_argument = click.argument("database")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")

yes_option = click.option("--yes", is_flag=True, help="Do not ask before something is destroyed.")


class NotConfirmed(UsageError):
    """It was not confirmed: {question}"""


def confirmed(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; raises ``NotConfirmed`` where nobody can answer, or the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(question=question, hint="Answer beforehand by --yes.")
    if not click.confirm(question, err=True):
        raise NotConfirmed(question=question, hint="Nothing was changed.")


_DURING_FREEZE = "dbplatform.during_freeze"


def _remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.meta[_DURING_FREEZE] = value


during_freeze_option = click.option(
    "--during-freeze",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Do not ask although the database is frozen.",
)


def freeze_is_answered(context: click.Context) -> bool:
    """Whether ``--during-freeze`` was given."""
    return bool(context.meta.get(_DURING_FREEZE))


class Frozen(UsageError):
    """{database} is frozen {freeze}."""


def ask_while_frozen(context: click.Context, declared: Declared) -> None:
    """Ask before a database is changed in a freeze; for verbs with ``during_freeze_option``, which answers.

    Raises ``Frozen`` where nobody can answer, or the answer is no.
    """
    freeze = declared.database.frozen(datetime.now(UTC))
    if freeze is None or freeze_is_answered(context):
        return
    frozen = Frozen(database=declared.name, freeze=freeze, hint="To change it all the same: --during-freeze.")
    if not sys.stdin.isatty():
        raise frozen
    note(frozen.message)
    if not click.confirm("Change it all the same?", err=True):
        frozen.hint = "Nothing was changed."
        raise frozen


class NotOneChoice(UsageError):
    """{verb} needs DATABASE, or --all, or --owner, and one of them alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """What was said of many databases at once."""

    owner: str | None
    without: tuple[str, ...]
    at_once: int

    @property
    def scope(self) -> str:
        """``all``, or whose they are."""
        return self.owner or "all"


def many_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--all``, ``--owner``, ``--except`` and ``--parallel``; the command's ``many`` is None where one is named."""

    @wraps(command)
    def given(
        *arguments: Any,
        database: str | None,
        every: bool,
        owner: str | None,
        without: str | None,
        parallel: int | None,
        **others: Any,
    ) -> Any:
        if (database is None) != (every or owner is not None):
            verb = click.get_current_context().command_path.partition(" ")[2]
            raise NotOneChoice(verb=verb, hint="See which are declared: dbplatform list")
        many = None
        if database is None:
            many = Many(owner=owner, without=names_in(without), at_once=parallel or half_the_cores())
        return command(*arguments, database=database, many=many, **others)

    for option in (
        click.option("--parallel", type=click.IntRange(1), envvar="DBPLATFORM_PARALLEL", help="How many databases at "
                     "once; by default DBPLATFORM_PARALLEL, else half of the cores."),
        click.option("--except", "without", metavar="NAME[,NAME]", help="But for these databases."),
        click.option("--owner", help="Every database of this owner: team:data, or data."),
        click.option("--all", "every", is_flag=True, help="Every declared database."),
        click.argument("database", required=False),
    ):  # fmt: skip
        given = option(given)
    return given


def names_in(words: str | None) -> tuple[str, ...]:
    """``a,b`` as people write several names."""
    return tuple(name.strip() for name in (words or "").split(",") if name.strip())


def half_the_cores() -> int:
    """How many processes go on at once where nothing is said: half of the cores that this one may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def port_option(name: str, *, default: int, help: str) -> Callable[[Any], Any]:
    """An option for a port."""
    return click.option(name, type=click.IntRange(1, 65535), default=default, show_default=True, help=help)


class _Duration(click.ParamType[timedelta]):
    """A time in PostgreSQL's words: ``90 s``, ``1 hour``, ``7 days``."""

    name = "interval"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return value if isinstance(value, timedelta) else Interval.parse(value).timedelta
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Name(click.ParamType[Relation]):
    """The name of a table or index, with its schema unless that is public."""

    name = "relation"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Relation:
        try:
            return value if isinstance(value, Relation) else Relation.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Duration()
NAME_OF_RELATION = _Name()

#: Bars appear once the work has taken this long.
_QUIET_SECONDS = 0.5


class SubVerbs(click.Group):
    """The sub-verbs of a verb; those of the contract that this version does not build say so."""

    def __init__(self, *args: Any, not_built_yet: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.not_built_yet = not_built_yet

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.not_built_yet:
            raise NotBuiltYet(what=f"{self.name} {cmd_name}", hint=f"Built are: {', '.join(self.commands)}.")
        return super().get_command(ctx, cmd_name)


def platform_of(context: click.Context) -> Platform:
    """The project named by ``-C``, else the nearest one upwards from here, else this repository's own."""
    named: Path | None = context.find_root().obj
    return Platform(Project.at(named) if named is not None else Project.find(Path.cwd()))


def opened(context: click.Context, database: str) -> tuple[Platform, Declared]:
    """The platform and one declared database; raises the user's mistake with its place."""
    platform = platform_of(context)
    return platform, platform.declared(database)


def show_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output; times are ISO 8601."""
    click.echo(json.dumps(document, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def say(text: str) -> None:
    """A line of the result, on standard output."""
    click.echo(text)


def note(text: str) -> None:
    """A line beside the result, on standard error."""
    click.echo(text, err=True)


def bold(text: str) -> str:
    """The text in bold, unless NO_COLOR is set; what is not a terminal gets it plain."""
    return text if os.environ.get("NO_COLOR") else click.style(text, bold=True)


def show_table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output; numbers stand to the right."""
    # Imported here and in ``bars``: a verb that shows neither does not pay for it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if title is not None:
        say(bold(title))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    with console.capture() as drawn:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return str(value)


@contextmanager
def bars(*, enabled: bool = True) -> Iterator[Callable[[str], None]]:
    """Show a bar for each task that reports its progress in the block; yields a function that prints above them.

    On a terminal the bars move and vanish at the end; elsewhere there are none.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    shown = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not enabled or not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    started = time.monotonic()

    def hear(fact: progress.Progress) -> None:
        if fact.task not in tasks:
            tasks[fact.task] = shown.add_task(fact.task, total=fact.total, unit=fact.unit)
        shown.update(tasks[fact.task], completed=fact.done, total=fact.total)
        if fact.total is not None and fact.done >= fact.total:
            shown.update(tasks[fact.task], visible=False)
        if time.monotonic() - started > _QUIET_SECONDS:
            shown.start()

    try:
        with progress.listening(hear):
            yield lambda text: shown.console.print(Text(text)) if enabled else None
    finally:
        shown.stop()
