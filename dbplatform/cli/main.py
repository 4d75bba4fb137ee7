"""The command line's entry: finds the verb, runs it, and turns every error into one sentence and an exit code.

A verb's module is imported only when the verb is called: ``migrate`` on a database with nothing to do must not pay for
Dagster.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from dbplatform.errors import OutOfMemory, PlatformError, UsageError, WorkError, out_of_memory

#: Each verb and the module that holds it, in the order in which the help shows them.
VERBS = {
    "init": "init",
    "adopt": "adopt",
    "list": "listing",
    "server": "server",
    "run": "run",
    "dev": "dev",
    "serve": "serve",
    "worker": "worker",
    "migrate": "migrate",
    "partition": "partition",
    "seed": "seed",
    "live": "live",
    "check": "check",
    "report": "report",
    "quarantine": "quarantine",
    "backup": "backup",
    "wal": "wal",
    "restore": "restore",
    "drill": "drill",
    "archive": "archive",
    "health": "health",
    "metrics": "metrics",
    "connections": "connections",
    "slow-queries": "slow_queries",
    "explain": "explain",
    "advise": "advise",
    "capacity": "capacity",
    "bench": "bench",
    "alerts": "alerts",
    "optimize": "optimize",
    "cleanup": "cleanup",
    "token": "token",
    "audit": "audit",
    "runs": "runs",
    "roles": "roles",
    "doctor": "doctor",
}

_REPORT = "This is a mistake of dbplatform itself: run it again with --debug and report what it prints."


class Stopped(WorkError):
    """stopped."""


class Unexpected(WorkError):
    """{kind}: {reason}"""


class Verbs(click.Group):
    """The verbs, loaded on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"dbplatform.cli.{VERBS[cmd_name]}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does it, which suggests commands only from those that are loaded."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=VERBS, ctx=ctx) from error


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("-C", "project", type=click.Path(path_type=Path), help="The project: a folder that holds defs/.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere.")
@click.version_option(package_name="dbplatform", message="%(prog)s %(version)s")
@click.pass_context
def dbplatform(context: click.Context, project: Path | None, debug: bool) -> None:
    """PostgreSQL operations: declare a database, get its whole operations graph.

    \b
    Exit codes: 0 done, 1 findings, 2 the command or the declaration is wrong, 3 the work failed.
    """
    context.obj = project


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code."""
    # What is imported is no garbage; to look for some at every 700 objects takes a sixth of a short command's time.
    gc.set_threshold(50_000, 20, 50)
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. Every error has become words or a JSON document."""
    as_json, debug = "--json" in arguments, "--debug" in arguments
    given = [argument for argument in arguments if argument != "--debug"]
    try:
        with dbplatform.make_context("dbplatform", given) as context:
            result = dbplatform.invoke(context)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _show(_usage_error(error), as_json=as_json, debug=False)
    except PlatformError as error:
        return _show(error, as_json=as_json, debug=debug)
    except (click.Abort, KeyboardInterrupt):
        return _show(Stopped(), as_json=as_json, debug=debug)
    except BrokenPipeError:
        # Whoever read our output left; nothing more can be said. 141 is what a shell calls an end by SIGPIPE.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        told = _told(error)
        if isinstance(told, OutOfMemory) and not debug:
            # What its frames hold goes with it: to tell of it takes memory, too.
            error.__traceback__ = None
        told.__cause__ = error
        return _show(told, as_json=as_json, debug=debug)


def _told(error: Exception) -> PlatformError:
    """No memory, or a ledger that does not answer, is nobody's mistake; what else no layer put into words is ours."""
    if refused := out_of_memory(error):
        return refused
    from psycopg import OperationalError
    from sqlalchemy.exc import DBAPIError

    from dbplatform.postgres.connection import in_words

    if isinstance(error, DBAPIError) and isinstance(error.orig, OperationalError):
        return in_words("the ledger", error.orig)
    return Unexpected(kind=type(error).__name__, reason=str(error).strip() or "no message", hint=_REPORT)


def _usage_error(error: click.ClickException) -> UsageError:
    context: Any = getattr(error, "ctx", None)
    hint = f"See: {context.command_path} --help" if context is not None else None
    return UsageError(error.format_message(), hint=hint)


def _show(error: PlatformError, *, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if as_json:
        click.echo(json.dumps({"error": error.as_json()}))
    else:
        place = f"{error.place}: " if error.place else ""
        label = "error:" if os.environ.get("NO_COLOR") else click.style("error:", fg="red", bold=True)
        click.echo(f"{label} {place}{error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()
