-- Archives by a condition on the row, beside its age or instead of it.
alter table ledger.archive
    alter column column_name drop not null,
    alter column cutoff drop not null,
    add column predicate text;
comment on column ledger.archive.predicate is 'the condition that was declared as where';
