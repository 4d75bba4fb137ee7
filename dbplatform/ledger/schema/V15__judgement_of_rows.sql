-- What a failing row's fields are, which of them are masked, and until when its failure is accepted; rows set aside.
alter table ledger.quality_result
    add column accepted_until date,
    add column accepted_reason text,
    add column key_columns jsonb not null default '[]',
    add column value_columns jsonb not null default '[]',
    add column masked_columns jsonb not null default '[]',
    add column quarantined_rows bigint,
    add column quarantine_table text,
    add column rows_removed_at timestamptz;
comment on column ledger.quality_result.accepted_until is 'from the beginning of this day (UTC) a failure counts again';
comment on column ledger.quality_result.quarantined_rows is 'moved aside by this run; null where that is not declared';
comment on column ledger.quality_result.rows_removed_at is 'when retention removed the failing rows that were kept';

create index quality_result_with_rows on ledger.quality_result (table_name, name, run_id) where kept_rows > 0;
