"""ScriptSensei: schema and rows stay whatever starts again, changes are pushed, and a bad release can be taken back."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn
from dagster import AssetKey
from websockets.asyncio.client import connect as watch

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.thresholds import judge
from dbplatform.orchestration.location import definitions_of
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.pools import DatabasePool, PoolExhausted, pool_settings
from dbplatform.web.app import create_app
from dbplatform.web.push.service import Push, Pushed
from dbplatform.web.server import configuration, guarded, listen
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.docs.test_runbooks import RUNBOOKS, git, released
from dbplatform_tests.docs.test_tutorial import typed
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.test_five_systems import DEFS, filled
from dbplatform_tests.systems.conftest import System, declare
from dbplatform_tests.typed import Type, typist
from dbplatform_tests.web.test_push import Watching

Session = psycopg.Connection[Any]
TABLES = ("prescriptions", "extraction_results", "extraction_configs", "reviewers", "field_reviews")
#: A question for each of the six indexes.
INDEXES = {
    "idx_prescriptions_status": "select id from prescriptions where status = 'queued'",
    "idx_prescriptions_uploaded_at": "select id from prescriptions order by uploaded_at desc limit 20",
    "idx_extraction_results_prescription_id": """
        select field_value from extraction_results where prescription_id = md5('x')::uuid
    """,
    "idx_extraction_results_model_name": "select id from extraction_results where model_name = 'x'",
    "idx_extraction_results_field_name": "select id from extraction_results where field_name = 'x'",
    "idx_extraction_configs_is_default": "select id from extraction_configs where is_default = false",
}
#: Its index begins with the prescription, too, and could answer in the place of the one that was asked for.
WITHOUT_UNIQUE = """
    do $$ begin
        execute (select format('alter table extraction_results drop constraint %I', conname) from pg_constraint
                 where conrelid = 'extraction_results'::regclass and contype = 'u');
    end $$
"""
UPLOAD = """
    insert into prescriptions (file_name, mime_type, file_bytes, file_sha256)
    values ('scan.png', 'image/png', 1, repeat('0', 64)) returning id::text
"""
READ = """
    insert into extraction_results (prescription_id, model_name, field_name, field_value, confidence, processing_ms)
    values (%s::uuid, 'model-a', 'drug', 'Ibuprofen 400 mg', 0.97, 120)
"""


def everything(target: Target) -> dict[str, str]:
    """The content of each table."""
    with connect(target, work="test") as connection:
        return {table: content_hash(connection, Relation("public", table)) for table in TABLES}


def test_the_first_schema_runs_over_tables_that_are_there_and_keeps_their_rows(database: Target) -> None:
    first = (DEFS / "scriptsensei" / "migrations" / "V0000__initial_schema.sql").read_text()
    by_hand(database, first, UPLOAD, first)
    with psycopg.connect(database.url) as connection:
        assert connection.execute("select status, file_name from prescriptions").fetchall() == [("queued", "scan.png")]


def test_another_start_changes_nothing(command: Type, system: System) -> None:
    with psycopg.connect(system.target.url) as connection:
        history = connection.execute("select * from flyway_schema_history order by installed_rank").fetchall()
        before = everything(system.target)
        started = command("migrate", "apply", "scriptsensei")
        assert (started.code, started.out.strip()) == (0, "scriptsensei: nothing to do, at version 0004")
        assert command("seed", "apply", "scriptsensei").code == 0
        again = connection.execute("select * from flyway_schema_history order by installed_rank").fetchall()
    assert (again, everything(system.target)) == (history, before)


def test_every_run_begins_with_the_migrations(system: System) -> None:
    graph = definitions_of(Project.at(system.project)).get_repository_def().asset_graph
    migrations = AssetKey(["scriptsensei", "migrations"])

    def behind(key: AssetKey) -> set[AssetKey]:
        parents = set(graph.get(key).parent_keys)
        return parents.union(*(behind(parent) for parent in parents))

    assert behind(migrations) == set()
    tables = [key for key in graph.get_all_asset_keys() if key.path[1] in ("seed", "live", "tables", "backup")]
    assert len(tables) == 3 + len(system.declaration.quality)
    assert [key for key in tables if migrations not in behind(key)] == []


@pytest.fixture
def release(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[Path, Type]:
    """The system in a project whose migrations may be added to: their folder, and who types commands there."""
    place = tmp_path / "defs" / "scriptsensei"
    declare(place, DEFS / "scriptsensei")
    (place / "migrations").unlink()
    shutil.copytree(DEFS / "scriptsensei" / "migrations", place / "migrations")
    with filled(database, "scriptsensei", "test"):
        pass
    monkeypatch.setenv("SYSTEM_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return place / "migrations", typist(tmp_path, capsys)


def test_a_version_that_drops_or_empties_a_table_is_refused(release: tuple[Path, Type], database: Target) -> None:
    migrations, type_ = release
    before = everything(database)
    for statement in ("drop table field_reviews;", "truncate prescriptions cascade;"):
        (migrations / "V0005__tidy.sql").write_text(statement)
        refused = type_("migrate", "apply", "scriptsensei")
        assert refused.code == 2
        assert "V0005__tidy.sql" in refused.err
    assert everything(database) == before


@pytest.mark.parametrize("index", INDEXES)
def test_each_of_the_six_indexes_answers_its_question(session: Session, index: str) -> None:
    session.execute("set local enable_seqscan = off")
    session.execute(WITHOUT_UNIQUE)
    plan = "\n".join(line for (line,) in session.execute(f"explain {INDEXES[index]}".encode()))
    assert index in plan


def test_there_is_one_default_configuration(session: Session) -> None:
    assert session.execute("select count(*) from extraction_configs where is_default").fetchone() == (1,)
    with pytest.raises(psycopg.errors.UniqueViolation):
        session.execute("update extraction_configs set is_default = true")


def test_the_queue_holds_what_still_needs_a_machine_or_a_person(session: Session) -> None:
    found = session.execute("select status, count(*) from processing_queue group by 1").fetchall()
    expected = session.execute(
        "select status, count(*) from prescriptions where status <> 'completed' group by 1"
    ).fetchall()
    assert sorted(found) == sorted(expected) != []


def test_ten_connections_are_all_that_the_pool_opens(system: System) -> None:
    settings = pool_settings(system.declaration.connection.environment, system.declaration.connection.pool)
    pool = DatabasePool(system.target, replace(settings, timeout_s=0.1))
    try:
        taken = [pool.engine.connect() for _ in range(10)]
        with pytest.raises(PoolExhausted, match="All 10 connections"), pool.connection():
            pass
        for connection in taken:
            connection.close()
    finally:
        pool.close()


@asynccontextmanager
async def served(system: System) -> AsyncIterator[str]:
    """The address of ``/ws`` of a status service that follows the declared live tables."""
    live = {system.name: system.declaration.live}
    pushed = Pushed(names=[system.name], live=live, target_of=lambda _: system.target, ledger=system.ledger.target)
    app = create_app(system.ledger, system.project, push=Push(pushed))
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(configuration(guarded(app, "127.0.0.1")))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}/ws"
    finally:
        server.should_exit = True
        await serving
        listening.close()


def test_an_upload_reaches_all_who_watch_and_nothing_that_stands_on_it_does(system: System, command: Type) -> None:
    assert command("live", "apply", "scriptsensei").code == 0

    def upload() -> str:
        """One scan, of which one field was read."""
        with psycopg.connect(system.target.url) as session:
            [(scan,)] = session.execute(UPLOAD.encode()).fetchall()
            session.execute(READ.encode(), (scan,))
        return str(scan)

    def remove() -> None:
        with psycopg.connect(system.target.url) as session:
            session.execute("delete from prescriptions where file_name = 'scan.png'")

    async def test() -> None:
        async with served(system) as address, AsyncExitStack() as open_:
            watchers = [Watching(await open_.enter_async_context(watch(address))) for _ in range(2)]
            for watcher in watchers:
                await watcher.connection.send(f'{{"type": "subscribe", "databases": ["{system.name}"]}}')
                state = (await watcher.next("hello"))["databases"][system.name]
                while state["trouble"] is not None:
                    state = await watcher.next("feed")
            scan = await asyncio.to_thread(upload)
            read: dict[str, Any] = {}
            for watcher in watchers:
                seen = await tables(watcher)
                assert seen.keys() == {"public.prescriptions", "public.extraction_results"}
                [uploaded], [read] = seen["public.prescriptions"]["rows"], seen["public.extraction_results"]["rows"]
                assert uploaded.keys() == {"id", "status", "uploaded_at"}
                assert (uploaded["id"], uploaded["status"]) == (scan, "queued")
                assert read.keys() == {"id", "prescription_id", "model_name", "field_name", "confidence"}
                assert read["prescription_id"] == scan
            await asyncio.to_thread(remove)
            for watcher in watchers:
                seen = await tables(watcher)
                assert {table: (one["rows"], one["gone"]) for table, one in seen.items()} == {
                    "public.prescriptions": ([], [{"id": scan}]),
                    "public.extraction_results": ([], [{"id": str(read["id"])}]),
                }

    async def tables(watcher: Watching) -> dict[str, dict[str, Any]]:
        """The next message, by table: what was committed together comes together."""
        return {one["table"]: one for one in (await watcher.next("changes"))["tables"]}

    asyncio.run(test())


def test_no_live_column_is_one_that_quality_masks(system: System) -> None:
    shown = {(str(one.table), name) for one in system.declaration.live for name in one.columns or ["*"]}
    masked = {(str(one.table), name) for one in system.declaration.quality for name in one.mask}
    assert ("public.extraction_results", "field_value") in masked
    assert shown & masked == set()
    assert "*" not in {name for _, name in shown}


def test_a_backup_is_taken_at_once_and_read_from_end_to_end(command: Type) -> None:
    backup = command("backup", "create", "scriptsensei", "--json").json
    assert backup["status"] == "complete"
    assert command("backup", "verify", "scriptsensei", backup["id"]).code == 0
    listed = command("backup", "list", "scriptsensei", "--json").json["backups"]
    assert backup["id"] in [one["id"] for one in listed]


def test_all_that_worked_still_does(command: Type) -> None:
    found = command("check", "scriptsensei", "--json").json
    assert found["verdict"] == "passed"
    assert {one["table"] for one in found["tables"]} >= {f"public.{table}" for table in TABLES if table != "reviewers"}


def test_polling_that_comes_back_is_a_warning(system: System, command: Type) -> None:
    command("metrics", "scriptsensei")
    assert "commits_per_s" in command("metrics", "scriptsensei", "--json").json["metrics"]
    [limit] = [one for one in system.declaration.thresholds if one.metric == "commits_per_s"]
    assert limit.for_.timedelta == timedelta(minutes=15), "uploads come in waves; a poll does not end"
    told = {}
    for a_minute in (10, 119, 121, 3_000):
        found = Metric(name="commits_per_s", value=a_minute / 60, unit=kind_of("commits_per_s").unit)
        metrics = Metrics(database="scriptsensei", at=datetime.now(UTC), values={"commits_per_s": found})
        [judgement] = judge(metrics, [limit]).judged
        told[a_minute] = judgement.severity
    assert told == {10: None, 119: None, 121: "warning", 3_000: "warning"}, "the 120 a minute of before"


def test_a_copy_of_the_projects_folder_is_all_that_an_image_needs(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The last step of such an image is a copy, and that copy is all that a command has there."""
    said = (REPOSITORY / "deploy" / "Dockerfile").read_text()
    for line in ("COPY --chown=root:root . /srv/project", "DBPLATFORM_PROJECT=/srv/project", "WORKDIR /srv/project"):
        assert line in said
    declare(tmp_path / "here" / "defs" / "scriptsensei", DEFS / "scriptsensei")
    image = tmp_path / "image" / "srv" / "project"
    shutil.copytree(tmp_path / "here", image)  # what links lead to, too
    shutil.rmtree(tmp_path / "here")
    assert [path for path in image.rglob("*") if path.is_symlink()] == []
    monkeypatch.setenv("SYSTEM_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    type_ = typist(image, capsys)
    assert type_("migrate", "apply", "scriptsensei").code == 0
    assert type_("seed", "apply", "scriptsensei").code == 0
    started = type_("migrate", "apply", "scriptsensei")
    assert started.out.strip() == "scriptsensei: nothing to do, at version 0004"
    assert type_("check", "scriptsensei", "--json").json["verdict"] == "passed"


def test_the_rollback_plan_leads_back_by_undo_and_by_a_restore(
    release: tuple[Path, Type], tmp_path: Path, database: Target
) -> None:
    """The commands of the runbook, typed for this system; word for word they are typed by a drill."""
    migrations, type_ = release
    rename = "alter table extraction_results rename {} to {};"
    released(
        tmp_path,
        {
            migrations / "V0005__certainty.sql": rename.format("confidence", "certainty"),
            migrations / "U0005__certainty.sql": rename.format("certainty", "confidence"),
        },
    )
    before = everything(database)
    proven = "no id yet"
    for one in typed(RUNBOOKS / "rollback.md"):
        words = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{8}", proven, one.command)
        words = words.replace("--replace shop", f"--replace {database.name}").replace("shop", "scriptsensei")
        if words.startswith("dbplatform restore"):  # the version comes once more, and does harm to the rows, too
            git(tmp_path, "revert", "--no-edit", "HEAD")
            assert type_("migrate", "apply", "scriptsensei").code == 0
            by_hand(database, "update prescriptions set status = 'failed', error_message = 'by mistake'")
            assert everything(database) != before
        if words.startswith("git "):
            git(tmp_path, *shlex.split(words)[1:])
            continue
        words, or_else, _ = words.partition(" || ")
        done = type_(*shlex.split(words)[1:])
        assert (done.code != 0) == bool(or_else), f"{words}\n{done.out}{done.err}"
        if " drill " in words:
            [proven] = re.findall(r"backup (\S+): PROVEN", done.out)
        if " undo " in words:
            assert everything(database) == before, "an undo loses nothing"
    assert everything(database) == before
    assert not (migrations / "V0005__certainty.sql").exists()
