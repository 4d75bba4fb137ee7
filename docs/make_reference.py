"""Write ``docs/reference/`` from the code: commands from click, the declaration from its models.

``make docs`` runs it; a test fails when a page is stale.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dbplatform.cli.main import NOT_BUILT_YET as UNBUILT_VERBS
from dbplatform.cli.main import VERBS, dbplatform
from dbplatform.declaration.database import NOT_BUILT_YET as UNBUILT_KEYS
from dbplatform.declaration.database import Database
from dbplatform.declaration.later import Later
from dbplatform.operations.runbooks import runbooks
from dbplatform.quality.policy import CHECK_TYPES

FOLDER = Path(__file__).parent / "reference"
_HEAD = "<!-- Written by `make docs` from the code: change the code, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    return {
        "commands.md": _HEAD + commands(),
        "declaration.md": _HEAD + declaration(),
        "alerts.md": _HEAD + alerts(),
    }


def commands() -> str:
    """Every verb with its options, as ``--help`` shows them."""
    parts = ["# Commands\n", _code(_help(dbplatform, "dbplatform"))]
    root = click.Context(dbplatform, info_name="dbplatform", max_content_width=110)
    for verb in VERBS:
        command = dbplatform.get_command(root, verb)
        assert command is not None
        parts += [f"\n## {verb}\n", _code(_help(command, f"dbplatform {verb}"))]
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                parts += [f"\n### {verb} {name}\n", _code(_help(sub, f"dbplatform {verb} {name}"))]
    parts += ["\n## Not built yet\n", ", ".join(f"`{verb}`" for verb in sorted(UNBUILT_VERBS)) + "\n"]
    return "\n".join(parts)


def declaration() -> str:
    """Every key of ``defs.yaml``, and every check type."""
    parts = ["# The declaration\n", "`type: dbplatform.ManagedDatabase`, and below `attributes`:\n"]
    parts += _model(Database, "attributes")
    parts += ["\n## Check types\n", "| type | written | meaning |", "|---|---|---|"]
    for check in CHECK_TYPES.values():
        purpose = " ".join((check.__doc__ or "").split("\n\n")[0].split())
        parts.append(f"| `{check.type}` | `{check.example}` | {purpose} |")
    parts += ["\n## Not built yet\n", "Refused by name, with file and line: "]
    parts += [", ".join(f"`{'.'.join(path).replace('.*', '[]')}`" for path in UNBUILT_KEYS) + ".\n"]
    return "\n".join(parts)


def alerts() -> str:
    """What each alert means and what to do: the pages that messages link to."""
    parts = ["# Alerts\n", "Every message names one of these. `dbplatform alerts runbook NAME` shows it, too.\n"]
    for page in runbooks().values():
        parts += [f"\n## {page.name}\n", f"{page.meaning}\n", page.advice]
        parts += [f"\nUsual limits: {page.limits.replace('<', '&lt;')}."] if page.limits else []
        parts += [f"\n<{page.document}>"] if page.document else []
    return "\n".join(parts) + "\n"


def _model(model: type[BaseModel], title: str) -> list[str]:
    rows = [f"\n## {title}\n", "| key | default | meaning |", "|---|---|---|"]
    below: list[str] = []
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        default = "required" if field.is_required() else _default(field.default)
        meaning = field.description or ""
        if inner is not None and name != "quality":
            below += _model(inner, name)
            meaning = meaning or " ".join((inner.__doc__ or "").split("\n\n")[0].split())
        rows.append(f"| `{name}` | {default} | {meaning} |")
    return rows + below


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, Later):
        return annotation.model
    if typing.get_origin(annotation) in (list, typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            found = _inner(argument)
            if found is not None:
                return found
    return None


def _default(value: Any) -> str:
    if value is PydanticUndefined or value is None or value in ([], {}) or isinstance(value, BaseModel):
        return ""
    return f"`{value}`"


def _help(command: click.Command, name: str) -> str:
    settings = dbplatform.context_settings
    return command.get_help(click.Context(command, info_name=name, terminal_width=110, **settings))


def _code(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
