-- work that an alert has begun by itself: once for each episode of it, and what became of it.
create table ledger.healing (
    alert_id bigint not null references ledger.alert (id) on delete cascade,
    work text not null,
    database text not null,
    key text not null unique,
    begun_at timestamptz not null,
    run_id text,
    outcome text check (outcome in ('succeeded', 'failed')),
    primary key (alert_id, work)
);
create index healing_database on ledger.healing (database, work, begun_at);
create index healing_going_on on ledger.healing (begun_at) where outcome is null;
