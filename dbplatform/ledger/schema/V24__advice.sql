-- what is advised for each database, what became of it, and the receipts: what was measured before and after.
create table ledger.advice (
    id text primary key,
    database text not null,
    kind text not null,
    subject text not null,
    severity text not null check (severity in ('warning', 'info')),
    reason text not null,
    evidence jsonb not null,
    lock text not null,
    cost text not null,
    confidence text not null,
    document text not null,
    sql text not null,
    undo_sql text,
    action jsonb,
    undo jsonb,
    statements jsonb not null default '[]',
    table_name jsonb,
    state text not null check (state in ('open', 'applying', 'applied', 'undoing', 'undone', 'dismissed', 'gone')),
    note text not null default '',
    first_seen_at timestamptz not null,
    seen_at timestamptz not null,
    changed_at timestamptz not null,
    receipt jsonb not null default '{}'
);
create index advice_database on ledger.advice (database, state);
