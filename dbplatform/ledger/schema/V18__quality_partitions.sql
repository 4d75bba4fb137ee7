-- What was counted in each partition of a table under checks, and how a later run knows that the partition is the same.
create table ledger.quality_partition (
    database text not null,
    table_name text not null,
    partition text not null,
    witness jsonb not null,
    answers jsonb not null,
    read_at timestamptz not null,
    primary key (database, table_name, partition)
);
comment on column ledger.quality_partition.witness is 'what is compared before the answers are taken over';
comment on column ledger.quality_partition.answers is 'by check: its declaration, counts and sums, and where its failing rows are kept';

alter table ledger.quality_table
    add column partitions integer,
    add column partitions_read integer;
comment on column ledger.quality_table.partitions_read is 'how many of the partitions were read; the results of the others were taken over';
