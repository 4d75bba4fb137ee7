-- archives: files of rows that have left their tables.
create table ledger.archive (
    id uuid primary key,
    database text not null,
    name text not null,
    table_name text not null,
    column_name text not null,
    cutoff timestamptz not null,
    rows bigint not null,
    bytes bigint not null,
    sha256 text not null,
    content_hash text not null,
    location text not null,
    backup_id text not null,
    status text not null check (status in ('exported', 'verified', 'deleted', 'restored')),
    deleted_rows bigint not null default 0,
    kept jsonb not null default '{}',
    created_at timestamptz not null default now(),
    verified_at timestamptz,
    deleted_at timestamptz,
    restored_at timestamptz
);
create index archive_database_created_at on ledger.archive (database, created_at desc);
