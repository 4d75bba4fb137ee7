-- how far the watch over each database has come: what it has seen need not be read again.
create table ledger.watch (
    database text primary key,
    looked_at timestamptz not null,
    checks_until timestamptz,
    runs_until timestamptz,
    measured_at timestamptz
);
