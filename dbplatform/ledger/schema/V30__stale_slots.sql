-- replication slots that nobody reads from: since when, as far as was seen, and when it was told that they are stale.
create table ledger.idle_slot (
    database text not null,
    slot_name text not null,
    restart_lsn text,
    idle_since timestamptz not null,
    told_at timestamptz,
    primary key (database, slot_name)
);
comment on column ledger.idle_slot.restart_lsn is 'where its reader stood; when that changes somebody has read';
comment on column ledger.idle_slot.told_at is 'when it was stale for the first time; one that is declared to be is dropped a day later';

create index operation_run_id on ledger.operation (run_id) where status = 'running';
