-- physical backups: which databases lie on which server, its named restore points, and what its recoveries must show.
create table ledger.server_database (
    database text not null,
    system_identifier text not null,
    on_server text not null,
    seen_at timestamptz not null default now(),
    primary key (database, system_identifier)
);
comment on column ledger.server_database.on_server is 'the name of the database on the server';

create table ledger.restore_point (
    system_identifier text not null,
    name text not null,
    lsn text not null,
    timeline_id integer not null,
    database text not null,
    made_at timestamptz not null,
    primary key (system_identifier, name)
);

create table ledger.witness (
    id uuid primary key,
    system_identifier text not null,
    database text not null,
    xid text not null,
    lsn text not null,
    timeline_id integer not null,
    began_at timestamptz not null,
    ended_at timestamptz not null,
    tables jsonb not null default '{}'
);
comment on table ledger.witness is
    'transactions of our own, between began_at and ended_at: a recovery to a later moment has them, to an earlier one not';
create index witness_system_ended_at on ledger.witness (system_identifier, ended_at);

alter table ledger.drill add column target text;
comment on column ledger.drill.target is 'the moment to which a physical backup was recovered';
