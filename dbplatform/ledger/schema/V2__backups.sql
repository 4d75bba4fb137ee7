-- backups and the drills that prove them.
create table ledger.backup (
    id text primary key,
    database text not null,
    kind text not null check (kind in ('logical', 'physical')),
    status text not null check (status in ('running', 'complete', 'failed', 'pruned')),
    run_id text,
    location text not null,
    started_at timestamptz not null,
    taken_at timestamptz,
    finished_at timestamptz,
    bytes bigint,
    sha256 text,
    proven_at timestamptz,
    damage text,
    error text,
    check (status not in ('complete', 'pruned') or (taken_at is not null and bytes is not null and sha256 is not null)),
    check (proven_at is null or status in ('complete', 'pruned')),
    check (proven_at is null or damage is null)
);
create index backup_database_started_at on ledger.backup (database, started_at desc);

create table ledger.drill (
    id uuid primary key,
    backup_id text not null references ledger.backup,
    database text not null,
    run_id text,
    status text not null check (status in ('running', 'proven', 'not proven', 'errored')),
    started_at timestamptz not null,
    finished_at timestamptz,
    rto_seconds double precision,
    rpo_seconds double precision,
    tables jsonb not null default '[]',
    errors jsonb not null default '[]'
);
create index drill_database_started_at on ledger.drill (database, started_at desc);
