-- An example: put your own tables here before the first run. Later changes are files of their own: V2__<words>.sql.

create table customer (
    id bigint generated always as identity primary key,
    email text not null,
    joined_on date not null default current_date
);

create table orders (
    id bigint generated always as identity,
    customer_id bigint not null references customer,
    placed_at timestamptz not null default now(),
    status text not null default 'placed',
    cents integer not null,
    primary key (id, placed_at)
) partition by range (placed_at);

create index on orders (customer_id);

comment on table orders is 'Partitioned by month: the partitions are declared in defs.yaml and made by the platform.';
