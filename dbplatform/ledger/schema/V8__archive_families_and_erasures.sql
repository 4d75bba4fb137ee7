-- Rows that leave along with those that they refer to: an archive of their own below that of their parents.
alter table ledger.archive
    add column parent_id uuid,
    add column parent_columns jsonb not null default '[]';
create index archive_parent_id on ledger.archive (parent_id) where parent_id is not null;

-- Rows that were erased on purpose, and are erased again after every restore of an older copy.
create table ledger.erasure (
    id uuid primary key,
    database text not null,
    table_name text not null,
    cause text not null check (cause in ('asked', 'expired')),
    note text,
    key_columns jsonb not null,
    salt bytea not null,
    rows bigint not null,
    column_name text,
    before timestamptz,
    decided_at timestamptz not null default now(),
    done_at timestamptz
);
create index erasure_database_table_name on ledger.erasure (database, table_name);
comment on column ledger.erasure.before is
    'expired rows are those whose column_name is before this; a later row with the same key is another row';

-- SHA-256 of salt and key, 32 bytes each, one after the other: the key itself may be what must not be kept.
create table ledger.erased_keys (
    erasure_id uuid not null references ledger.erasure on delete cascade,
    part integer not null,
    hashes bytea not null,
    primary key (erasure_id, part)
);

-- Archives that are no longer there: what they were, why they went, and what took their place.
create table ledger.removed_archive (
    id uuid primary key,
    database text not null,
    name text not null,
    table_name text not null,
    parent_id uuid,
    rows bigint not null,
    bytes bigint not null,
    sha256 text not null,
    content_hash text not null,
    location text not null,
    created_at timestamptz not null,
    erasure_id uuid not null references ledger.erasure,
    replaced_by uuid,
    newest timestamptz,
    decided_at timestamptz not null default now(),
    removed_at timestamptz
);
create index removed_archive_database on ledger.removed_archive (database);
comment on column ledger.removed_archive.newest is 'the newest time among its rows, as its own content has it';
