"""`dbplatform adopt`: what it writes has its evidence, and what it may not read is told."""

from __future__ import annotations

import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.backups import schema_text as backup_schema
from dbplatform.cli.main import main
from dbplatform.declaration.database import Database
from dbplatform.declaration.loading import load_project
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.adoption import adopt, candidates, survey
from dbplatform.operations.adoption.errors import NotPostgres
from dbplatform.operations.adoption.survey import refuse_other_products
from dbplatform.postgres.connection import AutocommitConnection, Target
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.suggest.suggestions import TableSuggestions, suggested
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.typed import Type, Typed, typist

SHOP = """
    create table customer (id int primary key, email text not null unique, country char(2) not null);
    insert into customer select i, 'c' || i || '@example.com', (array['DE', 'FR'])[1 + i % 2]
        from generate_series(1, 300) i;
    create table visit (
        id bigint generated always as identity primary key, customer_id int not null references customer, page text,
        created_at timestamptz not null default now()
    );
    create index on visit (created_at);
    insert into visit (customer_id, page, created_at)
        select 1 + i % 300, 'page ' || i % 40, now() - (6000 - i) * interval '3 hours' from generate_series(1, 6000) i;
    create table measurement (at timestamptz not null, value int) partition by range (at);
    create table measurement_old partition of measurement for values from ('2025-01-01Z') to ('2025-02-01Z');
    create table measurement_new partition of measurement for values from ('2025-02-01Z') to ('2025-03-01Z');
    create table "Müllers ""Liste"" hier" ("größe in cm" numeric not null, "名前" text);
    create view page as select page, count(*) from visit group by page;
    analyze;
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "defs").mkdir()
    return tmp_path


@pytest.fixture
def shop(database: Target, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types commands for a project in which the variable SHOP_URL leads to the shop."""
    run(database.url, SHOP)
    monkeypatch.setenv("SHOP_URL", database.url)
    return typist(project, capsys)


def run(url: str, script: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script.encode())


def declared(project: Path) -> Database:
    found = load_project(Project.at(project))
    assert found.broken == ()
    [only] = found.databases
    return only.database


def adopted(shop: Type, *options: str) -> Typed:
    return shop("adopt", "shop", "--url-env", "SHOP_URL", "--candidates-from", "1000", *options)


def test_every_proposal_stands_with_its_evidence(shop: Type, project: Path) -> None:
    said = adopted(shop)
    assert said.code == 0, said.err
    assert "dbplatform migrate baseline shop" in said.out
    text = (project / "defs" / "shop" / "defs.yaml").read_text()
    for words in (
        "6,000 rows and",
        "by the statistics of 20",
        "inserted 6,000, updated 0, deleted 0",
        "(all rows read)",
        "rows a month at its end",
        "rows lie in the order of created_at",
        "of the rows (",
        "proven by the foreign key",
        "measured: ",
        "partitioned already: 2 partitions of 1 month, from 2025-01-01 to 2025-03-01",
    ):
        assert words in text, words
    database = declared(project)
    assert database.connection.url_env == "SHOP_URL"
    assert database.connection.environment == "production"
    assert [str(one.table) for one in database.partitioned_tables] == ["public.measurement"]
    assert database.archives == []
    assert {str(one.table) for one in database.quality} == {
        *('public."Müllers ""Liste"" hier"', "public.customer", "public.measurement", "public.visit")
    }
    assert {one.metric for one in database.thresholds} >= {"database_bytes"}
    assert database.backups is not None


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (
            "create table later partition of measurement for values from ('2099-01-01Z') to ('2099-02-01Z')",
            "somebody makes them",
        ),
        (
            "create table measurement_parted partition of measurement for values from ('2025-03-01Z') to "
            "('2025-04-01Z') partition by hash (value)",
            "1 of its partitions are no plain tables",
        ),
    ],
)
def test_partitions_that_others_make_are_left_to_them(
    shop: Type, project: Path, database: Target, made: str, why: str
) -> None:
    run(database.url, made)
    assert adopted(shop).code == 0
    assert why in (project / "defs" / "shop" / "defs.yaml").read_text()
    assert declared(project).partitioned_tables == []


def test_a_table_that_is_dropped_while_it_is_looked_at_is_told(
    shop: Type, project: Path, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped_before(connection: AutocommitConnection, table: Relation, **given: Any) -> TableSuggestions:
        if table.name == "visit":
            run(database.url, "drop table visit cascade")
        return suggested(connection, table, **given)

    monkeypatch.setattr(adopt, "suggested", dropped_before)
    said = adopted(shop)
    assert said.code == 0, said.err
    text = (project / "defs" / "shop" / "defs.yaml").read_text()
    assert "public.visit" in text
    assert "not_null" in text


def test_what_would_change_data_holds_once_it_is_uncommented(shop: Type, project: Path) -> None:
    assert adopted(shop).code == 0
    file = project / "defs" / "shop" / "defs.yaml"
    text = re.sub(r"^  #   - ", "    - ", file.read_text(), flags=re.MULTILINE)
    file.write_text(text.replace("  # archives:", "  archives:"))
    database = declared(project)
    assert [(one.name, str(one.table), str(one.older_than)) for one in database.archives] == [
        ("old_measurement", "public.measurement", "12 months"),
        ("old_visit", "public.visit", "12 months"),
    ]
    candidate = {str(one.table): one for one in database.partitioned_tables}["public.visit"]
    assert (candidate.column, str(candidate.interval)) == ("created_at", "1 month")


def test_a_dry_run_prints_the_files_and_writes_none(shop: Type, project: Path) -> None:
    said = adopted(shop, "--dry-run")
    assert said.code == 0
    assert "  name: shop\n" in said.out
    assert "CREATE TABLE public.visit" in said.out
    document = adopted(shop, "--dry-run", "--json").json
    assert {one["path"] for one in document["files"]} == {"defs.yaml", "migrations/B1__baseline.sql"}
    assert all(one["content"] for one in document["files"])
    assert list((project / "defs").iterdir()) == []


def test_the_baseline_refuses_the_database_that_has_its_tables(
    shop: Type, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    assert adopted(shop).code == 0
    said = shop("migrate", "apply", "shop")
    assert said.code == 3
    assert "this database is not empty: it has the table public." in said.err
    assert "dbplatform migrate baseline shop" in said.err
    assert shop("migrate", "baseline", "shop").code == 0
    assert shop("migrate", "apply", "shop").code == 0


def test_outside_of_a_project_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["adopt", "shop", "--url-env", "SHOP_URL"])
    assert left.value.code == 2
    assert "There is no project at" in capsys.readouterr().err


def test_what_is_declared_is_not_overwritten(shop: Type, project: Path) -> None:
    assert adopted(shop).code == 0
    file = project / "defs" / "shop" / "defs.yaml"
    before = file.read_text()
    again = adopted(shop)
    assert again.code == 2
    assert "already holds shop: nothing was written." in again.err
    assert file.read_text() == before
    file.parent.rename(project / "defs" / "moved")
    assert adopted(shop).code == 2, "the name is taken, wherever its folder is"


def test_a_name_becomes_one_that_can_be_declared(shop: Type, project: Path) -> None:
    said = shop("adopt", "My Shop-2", "--url-env", "SHOP_URL")
    assert said.code == 0, said.err
    assert "My Shop-2 is called my_shop_2 here." in said.out
    assert declared(project).name == "my_shop_2"


def test_a_large_table_is_sampled_and_its_proposals_wait(shop: Type, project: Path, database: Target) -> None:
    plan = adopt.plan_adoption(
        Project.at(project),
        Target("shop", database.url),
        name="shop",
        url_env="SHOP_URL",
        environment="production",
        whole_rows=1_000,
    )
    found = {one.table: one for one in plan.checks}
    assert found["public.customer"].untried == ()
    assert all(one.proof for one in found["public.visit"].checks if one.type != "row_count")
    assert {one.type for one in found["public.visit"].untried} >= {"range", "matches"}
    assert "        # seen in the sample, and not tried on the whole table" in plan.files["defs.yaml"]
    adopt.write_adoption(Project.at(project), plan)
    visits = {str(one.table): one for one in declared(project).quality}["public.visit"]
    assert {check.type for check in visits.checks} == {one.type for one in found["public.visit"].checks}


@pytest.mark.parametrize(
    ("made", "source"),
    cases(
        ("", "ends by its index, shares estimated from the statistics"),
        ("drop index", "estimated from the statistics"),
        sample=("",),
    ),
)
def test_a_large_table_is_not_read_for_its_candidates(
    shop: Type, project: Path, database: Target, monkeypatch: pytest.MonkeyPatch, made: str, source: str
) -> None:
    if made:
        run(database.url, "drop index visit_created_at_idx")
    exact = adopted(shop, "--dry-run", "--json").json
    monkeypatch.setattr(candidates, "EXACT_ROWS", 0)
    found = adopted(shop, "--dry-run", "--json").json

    def visits(document: dict[str, Any]) -> dict[str, Any]:
        (one,) = [one for one in document["candidates"] if one["table"] == "public.visit"]
        return dict(one)

    assert f"({source})" in " ".join(visits(found)["evidence"])
    assert visits(found)["interval"] == visits(exact)["interval"]
    read, guessed = (int(visits(one)["archive"].split(" %")[0]) for one in (exact, found))
    assert abs(read - guessed) <= 2, "the histogram has a hundred steps"


@contextmanager
def reader(database: Target, *statements: str) -> Iterator[str]:
    """The URL of a user who may connect, and what the statements grant."""
    name = f"reader_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute(sql.SQL("create role {} login password 'trial'").format(sql.Identifier(name)))
        for statement in statements:
            owner.execute(sql.SQL(statement).format(sql.Identifier(name)))
        try:
            yield make_conninfo(database.url, user=name, password="trial")
        finally:
            owner.execute(sql.SQL("drop owned by {0}").format(sql.Identifier(name)))
            owner.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_what_may_not_be_read_is_told_and_left_out(
    shop: Type, project: Path, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(database, "grant select on visit, measurement, measurement_old, measurement_new to {}") as url:
        monkeypatch.setenv("SHOP_URL", url)
        said = adopted(shop, "--json")
        assert said.code == 0, said.err
        document = said.json
        assert document["not_seen"] == ['public."Müllers ""Liste"" hier"', "public.customer"]
        assert [one["table"] for one in document["tables"]] == ["public.measurement", "public.visit"]
        assert any("2 tables could not be seen" in note for note in document["notes"])
        assert any("A foreign key to public.customer" in note for note in document["notes"])
    folder = project / "defs" / "shop"
    baseline = (folder / "migrations" / "B1__baseline.sql").read_text()
    assert "CREATE TABLE public.visit" in baseline
    assert "public.customer" not in baseline
    assert "Müllers" not in baseline
    assert "  # No backup: pg_dump reads every row" in (folder / "defs.yaml").read_text()
    assert declared(project).backups is None
    assert declared(project).partitioned_tables == [], "it belongs to somebody else"


def test_nothing_that_may_be_read_is_one_sentence(
    shop: Type, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(database) as url:
        monkeypatch.setenv("SHOP_URL", url)
        said = adopted(shop)
    assert said.code == 2
    assert "has no table that reader_" in said.err
    assert "4 are there" in said.err
    assert "grant pg_read_all_data" in said.err


def test_an_empty_database_is_one_sentence(
    database: Target, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOP_URL", database.url)
    said = adopted(typist(project, capsys))
    assert said.code == 2
    assert "has no table that" in said.err
    assert "dbplatform init DIR" in said.err


def test_a_server_that_is_too_old_is_one_sentence(shop: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "OLDEST", 99)
    said = adopted(shop)
    assert said.code == 2
    assert "99 is the oldest that is supported." in said.err


@pytest.mark.parametrize(
    ("said", "product"),
    [
        ("CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)", "CockroachDB"),
        ("PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.65711", "Redshift"),
        ("PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu", "YugabyteDB"),
    ],
)
def test_what_only_speaks_like_postgresql_is_refused(said: str, product: str) -> None:
    with pytest.raises(NotPostgres, match=f"is {product}, not PostgreSQL"):
        refuse_other_products(said, Target("shop", ""))
    refuse_other_products("PostgreSQL 17.10 on x86_64-pc-linux-musl", Target("shop", ""))


def test_another_kind_of_server_is_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def greet() -> None:
            for _ in range(2):
                try:
                    session, _ = listening.accept()
                except OSError:
                    return
                with session:
                    session.sendall(b"J\0\0\0\n8.0.36\0")

        threading.Thread(target=greet, daemon=True).start()
        monkeypatch.setenv("SHOP_URL", f"postgresql://app:hidden@127.0.0.1:{port}/shop")
        said = adopted(typist(project, capsys))
    assert said.code == 3
    assert "is not PostgreSQL" in said.err
    assert "hidden" not in said.err


def test_no_connection_and_no_variable_are_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_ = typist(project, capsys)
    monkeypatch.delenv("SHOP_URL", raising=False)
    said = adopted(type_)
    assert said.code == 2
    assert "SHOP_URL, which holds the URL of the database shop, is not set" in said.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("SHOP_URL", f"postgresql://app:hidden@127.0.0.1:{port}/shop")
    said = adopted(type_)
    assert said.code == 3
    assert "nothing listens on 127.0.0.1" in said.err
    said = type_("adopt", "shop", "--url-env", "postgresql://app:hidden@127.0.0.1/shop")
    assert said.code == 2
    assert "hidden" not in said.err + said.out


def test_no_password_of_a_foreign_server_is_written(shop: Type, project: Path, database: Target) -> None:
    run(
        database.url,
        """
        create extension postgres_fdw;
        create server elsewhere foreign data wrapper postgres_fdw options (host 'elsewhere', dbname 'x');
        create user mapping for current_user server elsewhere options (user 'me', password 'very-secret');
        create foreign table far (id int) server elsewhere options (table_name 'far');
        create function ask() returns text language sql as $$ select 'host=elsewhere password=another-secret' $$;
        """,
    )
    said = adopted(shop)
    assert said.code == 0, said.err
    text = (project / "defs" / "shop" / "migrations" / "B1__baseline.sql").read_text()
    assert "very-secret" not in text
    assert "CREATE FOREIGN TABLE public.far" in text
    assert "User mappings hold passwords" in said.out
    assert "Look for a password in the baseline before you commit it" in said.out


def test_a_locked_table_does_not_hold_it_up(shop: Type, database: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_schema, "LOCK_WAIT_S", 1)
    with psycopg.connect(database.url) as other:
        other.execute("lock table customer in access exclusive mode")
        said = adopted(shop)
    assert said.code == 3
    assert "The schema of shop could not be read" in said.err


def test_an_extension_that_is_missing_here_is_told(
    shop: Type, project: Path, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database.url, "create extension hstore")
    monkeypatch.setattr(adopt, "extensions_of", lambda programs: {"plpgsql"})
    assert adopted(shop).code == 0
    file = project / "defs" / "shop" / "defs.yaml"
    assert "    # The embedded server lacks hstore: name one that has it, for trials and drills." in file.read_text()
    file.write_text(file.read_text().replace("    # scratch_url_env:", "    scratch_url_env:"))
    assert declared(project).connection.scratch_url_env == "SHOP_URL_SCRATCH"


def test_a_history_of_flyway_is_left_to_flyway(shop: Type, project: Path, database: Target) -> None:
    run(database.url, "create table flyway_schema_history (installed_rank int primary key, script text)")
    assert adopted(shop).code == 0
    migrations = declared(project).migrations
    assert migrations is not None
    assert str(migrations.history_table) == "public.dbplatform_schema_history"


def test_the_help_says_that_the_database_is_only_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["adopt", "--help"])
    assert left.value.code == 0
    assert "only read" in capsys.readouterr().out
