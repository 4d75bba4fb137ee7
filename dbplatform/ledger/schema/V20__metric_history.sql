-- a collection is one row with all it measured; what is older than two days is kept in steps of five minutes and hours.
alter table ledger.metric_collection
    add column measured jsonb not null default '{}',
    add column worst jsonb not null default '{}';
update ledger.metric_collection c set measured = coalesce((
    select jsonb_object_agg(name, jsonb_build_object(
        'value', value, 'sample', sample, 'labels', labels, 'detail', detail, 'complete', complete))
    from ledger.metric_sample s where s.collection_id = c.id), '{}');
-- dbplatform:allow drop table
-- Every sample is in its collection now.
drop table ledger.metric_sample;

create table ledger.metric_history (
    database text not null,
    step_s integer not null,
    at timestamptz not null,
    -- By metric: average, least, greatest, number of collections.
    measured jsonb not null,
    primary key (database, step_s, at)
);
