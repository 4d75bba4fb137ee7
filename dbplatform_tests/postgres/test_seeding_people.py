"""Seeds that hold people: words of Faker, and passwords that are hashed while they are loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from dbplatform.errors import PlatformError, VariableNotSet
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.seeding.apply import SeedReport, apply_seed
from dbplatform.seeding.errors import BadCsv, BadJson, SeedMistake
from dbplatform.seeding.passwords import hasher
from dbplatform.seeding.policy import SeedPolicy

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DEV = SeedPolicy(profile="dev", directory="seeds/dev")
READY = bcrypt.hashpw(b"ready", bcrypt.gensalt(4)).decode()


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute("create table users (id int primary key, name text, email text unique, password text)")
        yield connection


def apply(connection: AutocommitConnection, folder: Path, *, scale: float = 1) -> SeedReport:
    return apply_seed(connection, folder, DEV, database="shop", now=NOW, rows_scale=scale)


def passwords(connection: AutocommitConnection) -> list[Any]:
    return [row[0] for row in connection.execute("select password from users order by id").fetchall()]


def fits(password: str, stored: str) -> bool:
    return bcrypt.checkpw(password.encode(), stored.encode())


CSV = f'id,name,email,password\n1,A,a@x,secret\n2,B,b@x,"secret"\n3,C,c@x,\n4,D,d@x,{READY}\n'
JSON = (
    '{"id": 1, "password": "secret"}\n{"id": 2, "password": "secret"}\n{"id": 3, "password": null}\n'
    f'{{"id": 4, "password": "{READY}"}}\n'
)


@pytest.mark.parametrize(("file", "text"), [("users.csv", CSV), ("users.jsonl", JSON)])
def test_passwords_of_files_are_hashed_each_with_its_own_salt(
    connection: AutocommitConnection, tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "seed.yaml").write_text(
        f"bcrypt_rounds: 4\ntables:\n- {{table: users, file: {file}, passwords: [password]}}\n"
    )
    apply(connection, tmp_path)
    first, second, missing, ready = passwords(connection)
    assert fits("secret", first)
    assert fits("secret", second)
    assert first != second
    assert first.startswith("$2b$04$")
    assert (missing, ready) == (None, READY)


def test_a_changed_seed_leaves_the_passwords_of_rows_that_are_there(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    (tmp_path / "seed.yaml").write_text(
        "bcrypt_rounds: 4\ntables:\n- {table: users, file: users.csv, key: [id], passwords: [password]}\n"
    )
    (tmp_path / "users.csv").write_text("id,name,password\n1,A,first\n")
    apply(connection, tmp_path)
    before = passwords(connection)
    (tmp_path / "users.csv").write_text("id,name,password\n1,renamed,other\n2,B,second\n")
    apply(connection, tmp_path)
    after = passwords(connection)
    assert after[0] == before[0]
    assert fits("second", after[1])
    assert connection.execute("select name from users where id = 1").fetchone() == ("renamed",)


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("users.csv", f"id,password\n1,short\n2,{'x' * 73}\n", BadCsv),
        ("users.jsonl", '{"id": 1, "password": "x"}\n{"id": 2, "password": "' + "é" * 37 + '"}\n', BadJson),
    ],
)
def test_a_password_that_bcrypt_would_cut_is_refused_with_its_line_and_not_shown(
    connection: AutocommitConnection, tmp_path: Path, file: str, text: str, error: type[PlatformError]
) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "seed.yaml").write_text(
        f"bcrypt_rounds: 4\ntables:\n- {{table: users, file: {file}, passwords: [password]}}\n"
    )
    with pytest.raises(error, match="at most 72 bytes") as caught:
        apply(connection, tmp_path)
    assert caught.value.line == (3 if file == "users.csv" else 2)
    assert "xxx" not in str(caught.value)
    assert passwords(connection) == []


def test_the_default_strength_is_that_of_today() -> None:
    assert hasher(12)(b"x").startswith(b"$2b$12$")


PEOPLE = """
bcrypt_rounds: 4
tables:
- table: users
  rows: 300
  key: [id]
  generate:
    id: {sequence: 1}
    name: {faker: name}
    email: {faker: {provider: ascii_email, pool: 100}, unique: true}
    password: {bcrypt: {env: SEED_PASSWORD}}
"""


def test_generated_people_are_the_same_each_time_and_their_emails_unique(
    connection: AutocommitConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED_PASSWORD", "from outside")
    (tmp_path / "seed.yaml").write_text(PEOPLE)
    apply(connection, tmp_path)
    users = Relation("public", "users")
    first = content_hash(connection, users, leave_out=("password",))
    before = passwords(connection)
    assert len(set(before)) == 1
    assert fits("from outside", before[0])
    emails = [row[0] for row in connection.execute("select email from users").fetchall()]
    assert all(re.fullmatch(r"[^@ ]+@[a-z.-]+", email) for email in emails)
    assert len({email.partition("@")[2] for email in emails}) > 1
    connection.execute("truncate users; drop schema dbplatform cascade")
    apply(connection, tmp_path)
    assert content_hash(connection, users, leave_out=("password",)) == first
    assert set(passwords(connection)).isdisjoint(before)


def test_a_larger_scale_keeps_people_and_their_passwords(
    connection: AutocommitConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED_PASSWORD", "from outside")
    (tmp_path / "seed.yaml").write_text(PEOPLE)
    apply(connection, tmp_path)
    before = connection.execute("select id, email, password from users order by id").fetchall()
    assert apply(connection, tmp_path, scale=10).loaded_rows == 3000
    assert connection.execute("select id, email, password from users order by id limit 300").fetchall() == before


def test_a_password_whose_variable_is_not_set_is_asked_for(
    connection: AutocommitConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEED_PASSWORD", raising=False)
    (tmp_path / "seed.yaml").write_text(PEOPLE)
    with pytest.raises(VariableNotSet, match="SEED_PASSWORD"):
        apply(connection, tmp_path)
    assert passwords(connection) == []


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("faker: name", "faker: nmae", "Faker has no provider 'nmae' for public.users.name"),
        ("bcrypt_rounds: 4", "bcrypt_rounds: 4\nlocale: xx_XX", "no locale 'xx_XX'"),
    ],
)
def test_a_word_that_faker_does_not_know_is_refused(
    connection: AutocommitConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    says: str,
) -> None:
    monkeypatch.setenv("SEED_PASSWORD", "x")
    (tmp_path / "seed.yaml").write_text(PEOPLE.replace(before, after))
    with pytest.raises(SeedMistake, match=says):
        apply(connection, tmp_path)
