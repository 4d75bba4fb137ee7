-- By which part of its table a check was judged, where somebody asked for that.
alter table ledger.quality_result
    add column sample text,
    add column sampled_rows bigint;
comment on column ledger.quality_result.sample is 'in words; null: by all rows. Nothing is extrapolated';
