"""Push: a commit reaches everybody who watches, once for all of them; who was away misses nothing; junk is let go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn
from sqlalchemy import update
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from dbplatform.alerting import silences
from dbplatform.alerting.record import acknowledge
from dbplatform.declaration.project import Project
from dbplatform.ledger.backups import DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.reports import ReportReview
from dbplatform.live.install import apply_live
from dbplatform.live.policy import LivePolicy
from dbplatform.operations import looks
from dbplatform.operations.platform import Platform
from dbplatform.operations.tokens import create_token
from dbplatform.postgres import connection as connections
from dbplatform.postgres.connection import Target
from dbplatform.web.access import Access
from dbplatform.web.answers import DatabaseGone
from dbplatform.web.app import create_app
from dbplatform.web.location import pushed_of
from dbplatform.web.push import feed, hub, listening, route
from dbplatform.web.push.service import Push, Pushed
from dbplatform.web.server import configuration, guarded, listen
from dbplatform_tests.web.recorded_samples import put_alert, recorded_database

ITEMS = LivePolicy.model_validate({"table": "public.items", "most_rows": 50})
BOUND_S = 60
ENDS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'dbplatform listens to dbplatform_live'
"""


class Service:
    """A service that can be ended and begun again on its port."""

    def __init__(self, ledger: Ledger, database: Target, folder: Path, access: Access | None = None) -> None:
        self.ledger, self.database, self.folder, self.access = ledger, database, folder, access
        self.announcing = ledger.target
        self.place: Target | None = database
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Push]:
        push = Push(
            Pushed(
                names=("shop", "quiet"),
                live={"shop": [ITEMS]},
                target_of=lambda name: self.place if name == "shop" else None,
                ledger=self.announcing,
            )
        )
        app = create_app(self.ledger, self.folder, push=push, access=self.access)
        listening = listen("127.0.0.1", self.port)
        self.port = listening.getsockname()[1]
        server = uvicorn.Server(configuration(guarded(app, "127.0.0.1")))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield push
        finally:
            server.should_exit = True
            await serving
            listening.close()

    @asynccontextmanager
    async def watching(self, since: dict[str, str] | None = None, **more: Any) -> AsyncIterator[Watching]:
        async with connect(f"ws://127.0.0.1:{self.port}/ws", **more) as connection:
            await connection.send(
                json.dumps({"type": "subscribe", "databases": ["shop", "quiet"], "since": since or {}})
            )
            yield Watching(connection)


class Watching:
    """One client."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def next(self, *types: str) -> dict[str, Any]:
        """The next message of one of these types; others are passed over."""
        async with asyncio.timeout(BOUND_S):
            while True:
                message: dict[str, Any] = json.loads(await self.connection.recv())
                if message["type"] in types:
                    return message

    async def told(self, what: str, *databases: str) -> None:
        """Wait until it is told that there is a newer one of each of these databases."""
        left = set(databases)
        while left:
            message = await self.next("state")
            left -= {message["database"]} if what in message["what"] else set()

    async def begun(self) -> dict[str, Any]:
        """Its hello, when the feed follows the database."""
        hello = await self.next("hello")
        shop = hello["databases"]["shop"]
        while shop["trouble"] is not None:
            shop.update(await self.next("feed"))
        return hello


@pytest.fixture
def service(database: Target, ledger: Ledger, tmp_path: Path) -> Service:
    write(database, "create table items (id int primary key, name text)")
    with connections.connect(database, work="test") as connection:
        apply_live(connection, [ITEMS], database="shop")
    return Service(ledger, database, tmp_path)


def write(database: Target, text: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(text.encode())


async def written(service: Service, text: str) -> None:
    await asyncio.to_thread(write, service.database, text)


def runs(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_commit_is_told_with_its_rows_and_one_that_rolls_back_is_not(service: Service) -> None:
    async def test() -> None:
        async with service.running(), service.watching() as client:
            hello = await client.begun()
            assert hello["databases"]["shop"]["live"] == ["public.items"]
            assert hello["databases"]["quiet"] == {"live": [], "token": None, "trouble": None, "absent": False}
            await written(service, "begin; insert into items values (1, 'no'); rollback")
            await written(service, "insert into items values (2, 'yes')")
            message = await client.next("changes")
            assert message["database"] == "shop"
            assert message["tables"] == [
                {"table": "public.items", "rows": [{"id": 2, "name": "yes"}], "gone": [], "many": False}
            ]
            await written(service, "delete from items")
            [table] = (await client.next("changes"))["tables"]
            assert (table["rows"], table["gone"]) == ([], [{"id": "2"}])

    runs(test)


def test_a_burst_is_one_message_of_the_rows_as_they_are_at_last(service: Service) -> None:
    async def test() -> None:
        async with service.running(), service.watching() as client:
            await client.begun()
            await written(
                service, "do $$ begin for i in 1..40 loop insert into items values (i); commit; end loop; end $$"
            )
            await written(service, "insert into items values (99)")
            seen: set[int] = set()
            messages = 0
            while 99 not in seen:
                [table] = (await client.next("changes"))["tables"]
                seen |= {row["id"] for row in table["rows"]}
                messages += 1
            assert seen == {*range(1, 41), 99}
            assert messages < 41

    runs(test)


def test_who_was_away_gets_what_was_missed_and_who_was_not_nothing_twice(service: Service) -> None:
    async def test() -> None:
        async with service.running(), service.watching() as stays:
            await stays.begun()
            async with service.watching() as leaves:
                await leaves.begun()
                await written(service, "insert into items values (1)")
                token = (await leaves.next("changes"))["token"]
                await stays.next("changes")
            await written(service, "insert into items values (2)")
            await stays.next("changes")
            async with service.watching({"shop": token}) as back:
                [table] = (await back.next("changes"))["tables"]
                assert [row["id"] for row in table["rows"]] == [2]
            await written(service, "insert into items values (3)")
            [table] = (await stays.next("changes"))["tables"]
            assert [row["id"] for row in table["rows"]] == [3]

    runs(test)


def test_after_a_restart_of_the_service_nothing_is_missed_and_all_who_come_back_cost_one_reading(
    service: Service,
) -> None:
    async def test() -> None:
        async with service.running(), service.watching() as client:
            token = (await client.begun())["databases"]["shop"]["token"]
            await written(service, "insert into items values (1)")
            token = (await client.next("changes"))["token"]
        await written(service, "insert into items values (2)")
        await written(service, "create extension pg_stat_statements; select pg_stat_statements_reset()")
        async with service.running():

            async def comes_back() -> list[int]:
                async with service.watching({"shop": token}) as client:
                    return [row["id"] for row in (await client.next("changes"))["tables"][0]["rows"]]

            found = await asyncio.gather(*(comes_back() for _ in range(40)))
            assert found == [[2]] * 40
            assert await asyncio.to_thread(calls, service.database) < 15, "not one for each"

    runs(test)


def calls(database: Target) -> int:
    """How often events were read since the statistics were reset."""
    with psycopg.connect(database.url) as session:
        row = session.execute(
            "select coalesce(sum(calls), 0) from pg_stat_statements s join pg_database d on d.oid = s.dbid"
            " where d.datname = current_database() and query like '%live_event%' and query not like '%pg_stat%'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_lost_session_with_the_database_is_told_and_made_up_for(service: Service) -> None:
    async def test() -> None:
        async with service.running(), service.watching() as client:
            await client.begun()
            await written(
                service,
                ENDS,
            )
            await written(service, "insert into items values (1)")
            assert (await client.next("feed"))["trouble"] is not None
            assert (await client.next("feed"))["trouble"] is None
            [table] = (await client.next("changes"))["tables"]
            assert [row["id"] for row in table["rows"]] == [1]

    runs(test)


def test_a_table_that_stays_locked_is_told_as_changed_and_holds_no_other_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOCK_TIMEOUT", "100ms")
    # What its trigger notes, in a transaction that commits while somebody else has locked the table.
    noted = """
        insert into dbplatform.live_event (relation, op, keys) values ('public.items', 'i', '[["1"]]');
        select pg_notify('dbplatform_live', '')
    """

    async def test() -> None:
        async with service.running(), service.watching() as client:
            await client.begun()
            await written(service, "insert into items values (1, 'as it was')")
            await client.next("changes")
            with psycopg.connect(service.database.url) as holder:
                holder.execute("lock table items in access exclusive mode")
                await written(service, noted)
                [table] = (await client.next("changes"))["tables"]
                assert (table["rows"], table["gone"], table["many"]) == ([], [], True)
            await written(service, "update items set name = 'as it is'")
            [table] = (await client.next("changes"))["tables"]
            assert (table["rows"], table["many"]) == ([{"id": 1, "name": "as it is"}], False)

    runs(test)


def test_tables_that_become_live_later_are_followed_from_then_on(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    service = Service(ledger, database, tmp_path)

    def make_live() -> None:
        with connections.connect(database, work="test") as connection:
            apply_live(connection, [ITEMS], database="shop")

    async def test() -> None:
        async with service.running(), service.watching() as client:
            hello = await client.next("hello")
            assert hello["databases"]["shop"]["trouble"] is not None
            await written(service, "create table items (id int primary key, name text)")
            await asyncio.to_thread(make_live)
            while (await client.next("feed"))["trouble"] is not None:
                pass
            await written(service, "insert into items values (1)")
            [table] = (await client.next("changes"))["tables"]
            assert [row["id"] for row in table["rows"]] == [1]

    runs(test)


def test_a_database_that_was_never_made_is_absent_until_a_run_makes_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_MOST_S", 0.2)
    service.place = None

    async def test() -> None:
        async with service.running(), service.watching() as client:
            shop = (await client.next("hello"))["databases"]["shop"]
            while not shop["absent"]:
                shop = await client.next("feed")
            assert shop["trouble"] == "it is not made yet: dbplatform run shop"
            service.place = service.database
            while shop["trouble"] is not None:
                shop = await client.next("feed")
            assert shop["absent"] is False

    runs(test)


def test_a_place_is_none_until_something_was_done_there_and_then_it_is_missed(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "defs" / "shop").mkdir(parents=True)
    (tmp_path / "defs" / "shop" / "defs.yaml").write_text(
        "type: dbplatform.ManagedDatabase\nattributes: {name: shop, live: [{table: item}]}\n"
    )
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    platform = Platform(Project.at(tmp_path))
    pushed = pushed_of(platform)
    looks.begin(ledger, "shop", datetime.now(UTC))
    assert (pushed.target_of("shop"), pushed.target_of("other")) == (None, None)
    with ledger.operation("shop", "migrate"):
        pass
    with pytest.raises(DatabaseGone, match="The database shop was there, and is not any more"):
        pushed.target_of("shop")
    platform.ledger.engine.dispose()


def test_what_the_ledger_notes_is_announced_and_after_a_loss_all_that_may_be_new(service: Service) -> None:
    def work() -> None:
        with service.ledger.operation("quiet", "analyze"):
            pass

    async def told(client: Watching, what: list[str]) -> None:
        message = await client.next("state")
        while (message["database"], message["what"]) != ("quiet", what):
            message = await client.next("state")

    async def test() -> None:
        async with service.running(), service.watching() as client:
            await client.begun()
            await asyncio.to_thread(work)
            await told(client, ["runs"])
            await asyncio.to_thread(write, service.ledger.target, ENDS.replace("live", "ledger"))
            await told(client, ["advice", "alerts", "backups", "metrics", "quality", "runs"])

    runs(test)


def test_a_ledger_that_is_not_heard_is_told_to_all_and_taken_back_when_it_is_heard_again(service: Service) -> None:
    async def test() -> None:
        async with service.running(), service.watching() as client:
            trouble = (await client.next("hello"))["ledger"]["trouble"]
            while trouble is not None:
                trouble = (await client.next("ledger"))["trouble"]
            async with service.watching() as other:
                assert (await other.next("hello"))["ledger"] == {"trouble": None}
                await asyncio.to_thread(write, service.ledger.target, ENDS.replace("live", "ledger"))
                for one in (client, other):
                    assert (await one.next("ledger"))["trouble"] is not None
                    assert (await one.next("ledger"))["trouble"] is None

    runs(test)


def test_while_there_is_no_ledger_who_comes_is_told(service: Service) -> None:
    service.announcing = Target("ledger", "postgresql://127.0.0.1:1/nowhere")

    async def test() -> None:
        async with service.running(), service.watching() as client:
            assert (await client.next("hello"))["ledger"]["trouble"] is not None

    runs(test)


def test_what_a_person_or_a_drill_adds_is_announced_and_a_silence_of_everything_to_all(service: Service) -> None:
    ledger, hour = service.ledger, timedelta(hours=1)

    def silenced(database: str | None) -> int:
        now = datetime.now(UTC)
        made = silences.silence(ledger, database=database, metric=None, length=hour, reason="a test", by="ada", now=now)
        return made.id

    async def test() -> None:
        async with service.running(), service.watching() as client:
            await client.begun()
            alert = await asyncio.to_thread(put_alert, ledger, "quiet")
            # Who begins to listen is told of everything first.
            while (await client.next("state"))["what"] != ["alerts"]:
                pass
            await asyncio.to_thread(lambda: acknowledge(ledger, alert, by="ada", now=datetime.now(UTC)))
            await client.told("alerts", "quiet")
            one = await asyncio.to_thread(silenced, "quiet")
            await client.told("alerts", "quiet")
            await asyncio.to_thread(lambda: silences.end_silence(ledger, one, now=datetime.now(UTC)))
            await client.told("alerts", "quiet")
            await asyncio.to_thread(silenced, None)
            await client.told("alerts", "quiet", "shop")
            await asyncio.to_thread(recorded_database, ledger, "quiet")
            await client.told("advice", "quiet")
            with ledger.session() as session:
                session.execute(update(DrillRecord).values(status="not proven"))
            await client.told("backups", "quiet")
            with ledger.session() as session:
                review = ReportReview(
                    run_id="check-of-quiet", sha256="0" * 64, reviewer="ada", comment="seen", way="service"
                )
                session.add(review)
            await client.told("quality", "quiet")

    runs(test)


def test_while_work_runs_its_progress_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbplatform.web.push.progress.EACH_S", 0.05)
    write(service.database, "insert into items select i, repeat('x', 500) from generate_series(1, 20000) i")

    def copy(until: asyncio.Event) -> None:
        with service.ledger.operation("shop", "work"), psycopg.connect(service.database.url) as session:
            while not until.is_set():
                with session.cursor().copy("copy items to stdout") as out:
                    for _ in out:
                        pass

    async def test() -> None:
        seen = asyncio.Event()
        async with service.running(), service.watching() as client:
            await client.begun()
            working = asyncio.create_task(asyncio.to_thread(copy, seen))
            message = await client.next("progress")
            while not message["work"]:
                message = await client.next("progress")
            seen.set()
            [one] = message["work"]
            assert (one["what"], one["on"]) == ("COPY TO", "items")
            assert one["done"] > 0
            await working
            while message["work"]:
                message = await client.next("progress")

    runs(test)


WORDS = (
    "x" * 1_000_000,
    "no json",
    "[]",
    "{}",
    '{"type": "subscribe"}',
    '{"type": "subscribe", "databases": []}',
    '{"type": "subscribe", "databases": ["other"]}',
    '{"type": "subscribe", "databases": ["shop"], "more": 1}',
    '{"type": "subscribe", "databases": ["shop"], "since": {"shop": 1}}',
    b"\xff\x00",
)


def test_another_first_word_is_refused(service: Service) -> None:
    async def closing(word: str | bytes) -> int | None:
        async with connect(f"ws://127.0.0.1:{service.port}/ws") as client:
            try:
                async with asyncio.timeout(BOUND_S):
                    await client.send(word)
                    await client.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else None
        return None

    async def test() -> None:
        async with service.running():
            codes = [await closing(word) for word in WORDS]
        assert codes == [1009, *[1008] * (len(WORDS) - 1)]

    runs(test)


def test_a_second_word_a_foreign_page_and_a_stranger_are_refused(service: Service) -> None:
    async def test() -> None:
        async with service.running():
            async with service.watching() as client:
                await client.begun()
                await client.connection.send("more")
                with pytest.raises(ConnectionClosed, match="1008"):
                    await client.next("nothing that is ever sent")
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"ws://127.0.0.1:{service.port}/ws", origin=Origin("http://evil.example"))
        service.access = Access(tokens=True)
        async with service.running():
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"ws://127.0.0.1:{service.port}/ws")

    runs(test)


def test_who_may_watch_is_asked_again_after_a_while(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "KNOWN_S", 0.2)
    _, token = create_token(service.ledger, "watcher", "read", length=timedelta(hours=1), now=datetime.now(UTC))
    service.access = Access(tokens=True)
    headers = {"Authorization": f"Bearer {token}"}

    async def test() -> None:
        async with service.running():
            async with service.watching(additional_headers=headers) as client:
                with pytest.raises(ConnectionClosed, match="1013"):
                    await client.next("nothing that is ever sent")
            async with service.watching(additional_headers=headers) as client:
                await client.next("hello")

    runs(test)


def test_a_token_that_is_not_known_is_a_reset(service: Service) -> None:
    async def test() -> None:
        async with service.running(), service.watching() as first:
            own = (await first.begun())["databases"]["shop"]["token"]
            async with service.watching({"shop": "nonsense"}) as client:
                assert (await client.next("reset"))["token"] == own
            async with service.watching({"shop": f"00000000-0000-0000-0000-000000000000.{own[37:]}"}) as client:
                assert (await client.next("reset"))["token"].startswith(own[:36])

    runs(test)


def test_who_is_too_slow_is_let_go_and_holds_no_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_WAITING", 3)

    async def test() -> None:
        everybody, slow, quick = hub.Hub(), hub.Watcher(), hub.Watcher()
        everybody.join(slow, ["shop"])
        everybody.join(quick, ["shop"])
        for number in range(10):
            everybody.tell("shop", {"number": number})
            assert json.loads(await quick.next() or "") == {"number": number, "database": "shop"}
        assert (slow.is_behind, slow.waiting.qsize(), await slow.next()) == (True, 1, None)
        assert not quick.is_behind
        everybody.leave(slow)
        everybody.leave(quick)
        assert not everybody.is_watched("shop")

    runs(test)


def test_who_has_more_characters_to_take_than_are_held_is_let_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_CHARACTERS", 100)

    async def test() -> None:
        slow, quick = hub.Watcher(), hub.Watcher()
        for _ in range(5):
            slow.give("x" * 40)
            quick.give("x" * 40)
            assert await quick.next() == "x" * 40
        assert (slow.is_behind, slow.waiting.qsize(), await slow.next()) == (True, 1, None)
        assert not quick.is_behind

    runs(test)


def test_messages_are_kept_for_who_comes_back_up_to_their_sum_of_characters(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_KEPT_CHARACTERS", 600)

    async def test() -> None:
        async with service.running() as push, service.watching() as client:
            tokens = [(await client.begun())["databases"]["shop"]["token"]]
            for _ in range(3):
                await written(service, "insert into items select count(*) + 1, repeat('x', 200) from items")
                tokens.append((await client.next("changes"))["token"])
            shop = push.feeds["shop"]
            assert [shop.missed(token) is None for token in tokens] == [True, True, False, False]
            async with service.watching({"shop": tokens[0]}) as back:
                [table] = (await back.next("changes"))["tables"]
                assert [row["id"] for row in table["rows"]] == [1, 2, 3], "the database tells what was let go"

    runs(test)


def test_while_nothing_happens_a_heartbeat_is_sent_and_the_database_is_asked_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "HEARTBEAT_S", 0.05)
    write(service.database, "create extension pg_stat_statements")

    async def test() -> None:
        async with service.running(), service.watching() as client:
            await client.begun()
            await client.next("heartbeat")
            await written(service, "select pg_stat_statements_reset()")
            for _ in range(20):
                await client.next("heartbeat")
            assert await asyncio.to_thread(calls, service.database) == 0

    runs(test)
