-- settings of each database as the watch has seen them: the first look, then every change, so that an alert can name it.
create table ledger.setting_seen (
    database text not null,
    name text not null,
    at timestamptz not null,
    first boolean not null,
    before text,
    value text,
    primary key (database, name, at)
);
