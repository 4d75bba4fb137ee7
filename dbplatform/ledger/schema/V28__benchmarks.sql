-- runs of benchmarks with the times of their rounds, and which of them are kept as a baseline.
create table ledger.benchmark_run (
    id uuid primary key default gen_random_uuid(),
    database text not null,
    kind text not null check (kind in ('run', 'compare', 'pool')),
    baseline text,
    run_id text,
    surroundings jsonb not null,
    result jsonb not null,
    started_at timestamptz not null,
    finished_at timestamptz not null,
    unique (database, baseline)
);
create index benchmark_run_newest on ledger.benchmark_run (database, started_at desc);
