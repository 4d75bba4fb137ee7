-- What was tried out in a scratch database, and what was seen there.
create table ledger.trial (
    id uuid primary key default gen_random_uuid(),
    database text not null,
    kind text not null,
    fingerprint text not null,
    result jsonb not null,
    run_id text,
    tried_at timestamptz not null default now()
);
comment on column ledger.trial.fingerprint is 'SHA-256 of all that the result follows from: equal input, equal result';
create index trial_newest on ledger.trial (database, kind, tried_at desc);
