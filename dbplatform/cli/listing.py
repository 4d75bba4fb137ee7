"""``dbplatform list``: the declared databases, with state."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.cli.common import json_option, note, platform_of, say, show_json, show_table
from dbplatform.operations.overview import overview


@click.command("list")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """The declared databases, with state. Exit 2 when a declaration is broken; the others are still shown."""
    platform = platform_of(context)
    found = overview(platform)
    broken = platform.declarations.broken
    if as_json:
        show_json(
            {
                "databases": [state.as_json() for state in found],
                "broken": [{"folder": one.folder, **one.error.as_json()} for one in broken],
            }
        )
    else:
        columns = ["database", "state", "last verdict", "last checked", "declared in"]
        rows: list[list[Any]] = [
            [s.name, s.state, s.verdict, s.checked_at and f"{s.checked_at:%Y-%m-%d %H:%M} UTC", s.file] for s in found
        ]
        if any(s.freeze for s in found):
            columns.append("frozen")
            rows = [[*row, s.freeze] for row, s in zip(rows, found, strict=True)]
        show_table(None, columns, rows)
        if not found and not broken:
            say(f"No database is declared in {platform.project.defs}.")
        for one in broken:
            note(f"error: {one.error}")
    return 2 if broken else 0
