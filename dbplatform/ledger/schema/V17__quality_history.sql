-- What each check has measured over time, beside what was expected. It outlives its run, whose rows may be removed.
create table ledger.quality_history (
    database text not null,
    table_name text not null,
    name text not null,
    at timestamptz not null,
    run_id text not null,
    type text not null,
    status text not null check (status in ('passed', 'failed', 'errored', 'accepted')),
    value double precision,
    failed_rows bigint,
    considered_rows bigint,
    seconds double precision not null,
    expected double precision,
    low double precision,
    high double precision,
    primary key (database, table_name, name, at)
);
create index quality_history_table_at on ledger.quality_history (database, table_name, at);
create index quality_history_run on ledger.quality_history (run_id);

-- What runs before this version have left. A check that is run again in a run keeps its newest result only.
insert into ledger.quality_history
    (database, table_name, name, at, run_id, type, status, value, failed_rows, considered_rows, seconds)
select q.database, r.table_name, r.name, t.checked_at, q.run_id, r.type, r.status, r.value, r.failed_rows,
       r.considered_rows, t.seconds
from ledger.quality_result r
join ledger.quality_run q using (run_id)
join ledger.quality_table t on t.run_id = r.run_id and t.table_name = r.table_name
on conflict do nothing;
