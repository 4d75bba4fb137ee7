"""Writes the seed files of the declared databases: made-up people, companies and texts, the same ones every time.

``python -m dbplatform.defs.<database>.seeds.generate`` writes the folders ``dev``, ``test`` and ``staging`` beside it.
Times end at ``NOW``, and the seed moves them to the present when it is loaded. Everybody here is invented; e-mail
addresses end on example.com, which nobody has.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

NOW = datetime(2025, 10, 27, 18, tzinfo=UTC)

#: bcrypt of "correct horse battery staple", cost 10.
PASSWORD_HASH = "$2b$10$Vq3zQ0b7mF1sT9kX2dLr5uHaVL/tgEZgJ/pADk1cuR5DMvT4LWI6K"

FIRST_NAMES = (
    "Ada", "Amir", "Anna", "Bela", "Carla", "Chen", "Daniel", "Elif", "Emeka", "Eva", "Farid", "Grace", "Hana",
    "Ines", "Ivan", "Jonas", "Kofi", "Lara", "Leo", "Lina", "Luca", "Maja", "Marta", "Mina", "Nadia", "Noah", "Olga",
    "Omar", "Paul", "Priya", "Rosa", "Ruth", "Samir", "Sofia", "Tariq", "Tom", "Uma", "Vera", "Wei", "Yara", "Yusuf",
    "Zoe",
)  # fmt: skip
LAST_NAMES = (
    "Abara", "Albrecht", "Banerjee", "Becker", "Castillo", "Chen", "Costa", "Dahl", "Diaz", "Eriksen", "Fischer",
    "Fontaine", "Garcia", "Haddad", "Hansen", "Ito", "Jansen", "Kaya", "Keller", "Kowalski", "Larsen", "Lopez",
    "Marino", "Meyer", "Moreau", "Nguyen", "Novak", "Okafor", "Oliveira", "Patel", "Petrov", "Quinn", "Rossi", "Sato",
    "Schmidt", "Silva", "Tanaka", "Torres", "Usman", "Vogel", "Walsh", "Weber", "Yilmaz", "Zhang",
)  # fmt: skip


class Seed:
    """One profile of one database: its random numbers, and the rows of its tables."""

    def __init__(self, folder: Path, profile: str, tables: Sequence[str], newest: tuple[str, str]) -> None:
        """``tables`` in the order of loading; ``newest``: the table and column whose last value becomes the present."""
        self.random = Random(f"{folder.parent.name} {profile}")
        self._folder, self._newest = folder / profile, newest
        self._tables: dict[str, list[dict[str, Any]]] = {table: [] for table in tables}
        self._people: set[str] = set()

    def add(self, table: str, **values: Any) -> None:
        """Add a row. Times and dates are moved to the present at loading; a date that shall stay is given as text."""
        rows = self._tables[table]
        assert not rows or rows[0].keys() == values.keys(), f"{table}: {list(values)} after {list(rows[0])}"
        rows.append(values)

    def new(self, table: str, **values: Any) -> str:
        """Add a row with an id that people can read: which table, which row. Returns it."""
        kind = list(self._tables).index(table) + 1
        row_id = f"{kind:08x}-0000-4000-8000-{self.following(table):012x}"
        self.add(table, id=row_id, **values)
        return row_id

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table until now."""
        return self._tables[table]

    def following(self, table: str) -> int:
        """The next number of a table that counts its rows."""
        return len(self.rows(table)) + 1

    def write(self) -> None:
        """Write the CSV files and the ``seed.yaml``; files of more than 100 kB are packed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.iterdir():
            old.unlink()
        tables = {name: rows for name, rows in self._tables.items() if rows}
        files = {name: self._write_csv(name, rows) for name, rows in tables.items()}
        table, column = self._newest
        lines = [
            "# Written by ../generate.py: change that, not this.",
            "shift:",
            f"  newest: {{file: {files[table]}, column: {column}}}",
            "  by: 1 week",
            "tables:",
        ]
        for name, rows in tables.items():
            times = [key for key in rows[0] if any(isinstance(row[key], date) for row in rows)]
            shift = f", shift: [{', '.join(times)}]" if times else ""
            lines.append(f"  - {{table: public.{name}, file: {files[name]}{shift}}}")
        (self._folder / "seed.yaml").write_text("\n".join(lines) + "\n")

    def _write_csv(self, name: str, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([_word(value) for value in row.values()] for row in rows)
        content = text.getvalue().encode()
        file = f"{name}.csv"
        if len(content) > 100_000:
            file, content = f"{file}.gz", gzip.compress(content, mtime=0)
        (self._folder / file).write_bytes(content)
        return file

    # What rows are made of.

    def one(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.random.randrange(len(values))]

    def weighted(self, **weights: int) -> str:
        """One of the names, by their weights."""
        return self.random.choices(list(weights), list(weights.values()))[0]

    def chance(self, percent: float) -> bool:
        return self.random.random() * 100 < percent

    def whole(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def amount(self, low: float, high: float) -> float:
        """An amount of money."""
        return round(self.random.uniform(low, high), 2)

    def ago(self, days: float) -> datetime:
        """A whole second of the last so many days, more often a recent one."""
        return NOW - timedelta(seconds=int(days * 86_400 * self.random.random() ** 1.5))

    def times(self, count: int, *, days: float) -> list[datetime]:
        """So many moments of the last days in their order; the last is ``NOW``."""
        return sorted([*(self.ago(days) for _ in range(count - 1)), NOW])

    def after(self, moment: datetime, low_s: int, high_s: int) -> datetime:
        """A moment later, never after ``NOW``."""
        return min(NOW, moment + timedelta(seconds=self.whole(low_s, high_s)))

    def sha256(self) -> str:
        """What looks like one."""
        return f"{self.random.getrandbits(256):064x}"

    def person(self) -> tuple[str, str, str]:
        """First name, last name and an e-mail address that was not given before."""
        first, last = self.one(FIRST_NAMES), self.one(LAST_NAMES)
        email = address = f"{first}.{last}".lower()
        number = 1
        while email in self._people:
            number += 1
            email = f"{address}{number}"
        self._people.add(email)
        return first, last, f"{email}@example.com"

    def ip(self) -> str:
        """An address of the networks for documentation (RFC 5737)."""
        return f"{self.one(('192.0.2', '198.51.100', '203.0.113'))}.{self.whole(1, 254)}"


def generate(
    script: str,
    fill: Callable[[Seed, int], None],
    *,
    tables: Sequence[str],
    newest: tuple[str, str],
    sizes: Mapping[str, int],
) -> None:
    """Write every profile beside the script; ``fill`` adds the rows of a seed of that size."""
    for profile, size in sizes.items():
        seed = Seed(Path(script).resolve().parent, profile, tables, newest)
        fill(seed, size)
        seed.write()


def _word(value: Any) -> Any:
    """As PostgreSQL reads it; None is an empty field without quotes."""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, date):
        return value.isoformat()
    return value
