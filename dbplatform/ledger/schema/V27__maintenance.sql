-- what maintenance did: one row per run, and one per item of work with what was measured before and after it.
create table ledger.maintenance_run (
    id uuid primary key,
    database text not null,
    mode text not null,
    run_id text,
    started_at timestamptz not null,
    finished_at timestamptz,
    stopped text,
    report jsonb not null default '{}'
);
create index maintenance_run_newest on ledger.maintenance_run (database, started_at desc);

create table ledger.maintenance_item (
    id bigint generated always as identity primary key,
    maintenance_id uuid not null references ledger.maintenance_run on delete cascade,
    kind text not null,
    verb text not null,
    subject text not null,
    priority integer not null,
    reason text not null,
    statement text not null,
    undo text,
    state text not null check (state in ('done', 'not needed', 'left', 'failed', 'proposed')),
    words text not null default '',
    before jsonb not null,
    after jsonb not null,
    bytes bigint not null,
    seconds double precision not null,
    noted_at timestamptz not null default now()
);
create index maintenance_item_run on ledger.maintenance_item (maintenance_id);
