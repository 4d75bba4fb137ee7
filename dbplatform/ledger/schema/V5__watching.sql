-- how far the watch over each database has come: what it has seen need not be read again.
create table ledger.watch (
    database text primary key,
    at timestamptz not null,
    problem text
);
