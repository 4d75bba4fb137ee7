-- Purpose: every index of users' tables with what decides whether it is needed: keys, constraint, use, size.
-- Parameters: none.
-- Lock: ACCESS SHARE on each index for the moment in which its size is read; one that somebody holds or wants in ACCESS
--       EXCLUSIVE mode is not touched: its size is that of the last vacuum or ANALYZE.
-- First version: 14.
-- Source: PostgreSQL manual, pg_index, pg_stat_all_indexes, pg_constraint.
with locked as materialized (
    select relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null
)
select i.indexrelid::bigint as oid, n.nspname as schema, c.relname as name, t.oid::bigint as table_oid,
       tn.nspname as table_schema, t.relname as table, a.amname as method, i.indisunique as unique,
       i.indisvalid and i.indisready and i.indislive as valid, i.indisreplident as replica_identity,
       i.indisclustered as clustered, i.indpred is not null as partial, i.indexprs is not null as expression,
       exists (select from pg_constraint k where k.conindid = i.indexrelid) as constraint,
       i.indisexclusion or i.indisprimary as exclusive, c.relispartition or c.relkind = 'I' as partitioned,
       p.pid as builder,
       (i.indkey::int2[])[0:i.indnkeyatts - 1]::int[] as keys,
       coalesce((i.indkey::int2[])[i.indnkeyatts:i.indnatts - 1]::int[], '{}') as included,
       (select coalesce(array_agg(q.attname::text order by k.at), '{}')
        from unnest(i.indkey::int2[]) with ordinality k (attnum, at)
        join pg_attribute q on q.attrelid = i.indrelid and q.attnum = k.attnum
        where k.at <= i.indnkeyatts) as columns,
       array_to_string(i.indclass::oid[], ' ') as classes, array_to_string(i.indcollation::oid[], ' ') as collations,
       array_to_string(i.indoption::int2[], ' ') as options,
       coalesce(pg_get_expr(i.indexprs, i.indrelid), '') as expressions,
       coalesce(pg_get_expr(i.indpred, i.indrelid), '') as predicate,
       pg_get_indexdef(i.indexrelid) as definition,
       pg_stat_get_numscans(i.indexrelid) as scans,
       coalesce(case when i.indexrelid not in (select relation from locked)
                     then pg_relation_size(i.indexrelid) end,
                c.relpages * current_setting('block_size')::bigint) as bytes,
       case when current_setting('track_commit_timestamp')::bool and c.xmin::text::bigint >= 3
            then extract(epoch from clock_timestamp() - pg_xact_commit_timestamp(c.xmin))::float8 end as age_s
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_class t on t.oid = i.indrelid
join pg_namespace n on n.oid = c.relnamespace
join pg_namespace tn on tn.oid = t.relnamespace
join pg_am a on a.oid = c.relam
left join pg_stat_progress_create_index p on p.index_relid = i.indexrelid
where c.relpersistence <> 't' and tn.nspname !~ '^pg_' and tn.nspname not in ('information_schema', 'dbplatform')
order by n.nspname, c.relname
