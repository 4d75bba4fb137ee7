"""Rows that checks have moved aside: what lies there, and the way back into their tables."""

from __future__ import annotations

from dbplatform.declaration.loading import Declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect
from dbplatform.quality.masks import Masks
from dbplatform.quality.quarantine.giving_back import Aside, Choice, Returned, give_back, lies_aside

__all__ = ["Aside", "Choice", "Returned", "give_rows_back", "rows_aside"]


def rows_aside(platform: Platform, declared: Declared, choice: Choice) -> list[Aside]:
    """What lies in the quarantine of a database; only reads."""
    with connect(platform.target(declared), work="quarantine") as connection:
        return lies_aside(connection, choice)


def give_rows_back(platform: Platform, declared: Declared, choice: Choice) -> list[Returned]:
    """Return rows to their tables, under the writer lock, recorded in the ledger; see ``giving_back.give_back``."""
    with (
        platform.ledger.operation(declared.name, "quarantine return") as summary,
        platform.writer(declared, "quarantine return") as connection,
    ):
        masks = Masks.declared(declared.database.quality)
        returned = give_back(connection, choice, masks=bool(masks))
        summary["returned"] = [one.as_json() for one in returned]
    return returned
