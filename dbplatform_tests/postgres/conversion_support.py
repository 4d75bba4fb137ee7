"""A table with everything that a conversion carries over; a conversion in a process of its own that can be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg

from dbplatform.partitioning.conversion.convert import ConversionReport, convert
from dbplatform.partitioning.conversion.undo import undo
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AutocommitConnection, Target

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)

#: The primary key lacks the partition column, and nobody refers to it.
PLAIN = """
    create table event (id bigserial primary key, at timestamptz not null, body text);
    create index event_body on event (body);
    insert into event (at, body)
    select timestamptz '2026-03-15 00:00Z' - i * interval '1 hour', 'b' || i from generate_series(1, 500) i;
"""

#: Foreign keys both ways, identity, views, triggers, policies, rights, comments and settings.
RICH = """
    create table carrier (code text primary key);
    insert into carrier values ('AA'), ('BB');
    create table event (
        id bigserial,
        at timestamptz not null default now(),
        number int generated always as identity (start with 10 increment by 10),
        carrier text references carrier on delete cascade,
        body text,
        low text generated always as (lower(body)) stored,
        constraint event_key primary key (id, at),
        constraint positive check (id > 0),
        unique (at, carrier, id)
    );
    comment on table event is 'events';
    comment on column event.body is 'text';
    comment on constraint event_key on event is 'the key';
    create index event_body on event (lower(body)) where body is not null;
    comment on index event_body is 'by text';
    create index event_at on event using brin (at);
    alter table event alter body set statistics 500;
    alter table event alter body set (n_distinct = -0.5);
    create statistics event_pair on carrier, body from event;
    insert into event (at, carrier, body)
    select timestamptz '2026-03-15 00:00Z' - i * interval '1 hour', 'AA', 'B' || i from generate_series(1, 500) i;
    create table line (
        event_id bigint, event_at timestamptz,
        constraint line_event foreign key (event_id, event_at) references event (id, at) on delete cascade
    );
    insert into line select id, at from event limit 100;
    comment on constraint line_event on line is 'of an event';
    create view reading as select id, body from event;
    comment on view reading is 'what is read';
    create view deeper with (security_barrier = true) as select r.id, e.at from reading r join event e using (id);
    create function fill() returns trigger language plpgsql as
        $$ begin new.body := coalesce(new.body, 'empty'); return new; end $$;
    create trigger filling before insert on event for each row execute function fill();
    comment on trigger filling on event is 'never null';
    create function count_them() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger counting after insert on event referencing new table as n
        for each statement execute function count_them();
    grant select on event, reading to pg_monitor;
    grant update (body) on event to pg_monitor;
    alter table event enable row level security;
    create policy readers on event for select to pg_monitor using (carrier in (select code from carrier));
"""

_HASH = "select count(*), sum(hashtextextended(event::text, 0))::text from event"

_VICTIM = """
import os, signal, sys
from dbplatform import progress
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.postgres.conversion_support import back, forward

def die(fact):
    if fact.task == sys.argv[3] and fact.done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

with connect(Target("victim", sys.argv[1]), work="victim") as connection, progress.listening(die):
    {"forward": forward, "back": back}[sys.argv[2]](connection)
"""
_WAITING = """
    select count(*) from pg_stat_activity where application_name = 'dbplatform victim' and query ilike %s
    and wait_event_type = 'Lock'
"""

_END = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'dbplatform victim'"


def policy(**changes: Any) -> PartitionPolicy:
    return PartitionPolicy.model_validate(
        {"table": "event", "column": "at", "interval": "1 month", "premake": 2, **changes}
    )


def forward(connection: AutocommitConnection) -> ConversionReport:
    return convert(connection, policy(), now=NOW)


def back(connection: AutocommitConnection) -> ConversionReport:
    return undo(connection, policy())


def contents(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """Rows and content hash of the table."""
    row = connection.execute(_HASH).fetchone()
    assert row is not None
    return row


def kind(connection: psycopg.Connection[Any]) -> str:
    """``r`` for a plain table, ``p`` for a partitioned one."""
    row = connection.execute("select relkind::text from pg_class where oid = 'event'::regclass").fetchone()
    assert row is not None
    return str(row[0])


def left_over(connection: psycopg.Connection[Any]) -> list[str]:
    """What a conversion makes for itself and must not leave: indexes, tables, CHECKs, marks."""
    found = connection.execute(
        "select relname::text from pg_class where relname ~ '(_wide|_plain|_aside|_legacy)$' "
        "union all select conname::text from pg_constraint where conname = 'dbplatform_conversion' order by 1"
    ).fetchall()
    return [name for (name,) in found]


def _victim(database: Target, direction: str, task: str, done: int) -> list[str]:
    return [sys.executable, "-c", _VICTIM, database.url, direction, task, str(done)]


def run_and_die(database: Target, direction: str, task: str, done: int) -> None:
    """Convert or undo in a process that ends itself by SIGKILL when ``task`` has reached ``done``."""
    victim = subprocess.run(
        _victim(database, direction, task, done), capture_output=True, text=True, timeout=120, check=False
    )
    assert victim.returncode == -signal.SIGKILL, f"the point was not reached: {victim.stderr}"


def kill_while_waiting(database: Target, direction: str, statement: str) -> None:
    """Run until ``statement`` waits for a lock that the caller holds, then kill the process and its session."""
    victim = subprocess.Popen(_victim(database, direction, "never", 0))
    try:
        with psycopg.connect(database.url, autocommit=True) as watcher:
            while watcher.execute(_WAITING, (f"{statement}%",)).fetchone() == (0,):
                assert victim.poll() is None, "it did not wait"
                threading.Event().wait(0.005)
            victim.kill()
            # A session that waits for a lock does not see that nobody listens any more.
            watcher.execute(_END)
    finally:
        victim.kill()
        victim.wait()
