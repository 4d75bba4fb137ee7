-- Purpose: indexes with storage of their own, those of TOAST tables too, with all that says whether each wants to be
--          rebuilt or dropped, and what forbids it. One row each.
-- Parameters: %(only)s: oids of the tables; null: all. %(min_bytes)s: the bloat of smaller ones is not estimated.
-- Lock: ACCESS SHARE on each index for the moment in which its size is read; one that somebody holds or wants in ACCESS
--       EXCLUSIVE mode is not touched: its size is that of the last vacuum or ANALYZE.
-- First version: 14.
-- Source: PostgreSQL manual, pg_index, "REINDEX" (rebuilding concurrently), "B-Tree Implementation"; bloat as in
--         metrics_indexes.sql: an index that deduplicates is told too low, never too high.
with locked as materialized (
    select relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null and pid <> pg_backend_pid()
), settings as materialized (
    select current_setting('block_size')::float8 as block, current_setting('server_version_num')::int as version
), indexes as materialized (
    select i.indexrelid, i.indrelid, i.indkey, i.indisexclusion, i.indisunique, i.indisvalid and i.indisready and i.indislive as valid,
           n.nspname, c.relname, c.relam, c.reltuples, m.oid as of_table, mn.nspname as table_schema, m.relname as table_name,
           t.relkind = 't' as of_toast, mn.nspname in ('pg_catalog', 'information_schema') as system, m.relowner,
           case when c.oid in (select relation from locked) then c.relpages * s.block
                else coalesce(pg_relation_size(c.oid), 0) end as bytes,
           coalesce((select option_value::float8 from pg_options_to_table(c.reloptions) where option_name = 'fillfactor'),
                    90) / 100 as fillfactor
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_class t on t.oid = i.indrelid
    join pg_class m on m.oid = case when t.relkind = 't' then
        (select oid from pg_class where reltoastrelid = t.oid) else t.oid end
    join pg_namespace n on n.oid = c.relnamespace
    join pg_namespace mn on mn.oid = m.relnamespace
    cross join settings s
    where c.relkind = 'i' and c.relpersistence <> 't' and mn.nspname !~ '^pg_temp'
      and (%(only)s::oid[] is null or m.oid = any (%(only)s::oid[]))
)
select x.indexrelid::bigint as oid, x.nspname as schema, x.relname as name, x.of_table::bigint as of_table,
       x.table_schema, x.table_name, x.of_toast, x.system, x.indisexclusion as exclusion, x.indisunique as is_unique, x.valid, a.amname::text as method,
       x.bytes::bigint as bytes, x.fillfactor,
       pg_has_role(x.relowner, 'usage')
           or case when s.version >= 170000 then has_table_privilege(x.of_table, 'maintain') else false end as may_reindex,
       pg_has_role(x.relowner, 'usage') as owned,
       -- Whoever builds holds SHARE UPDATE EXCLUSIVE or more on the table until the index is valid; the view of the
       -- progress shows nothing of other roles.
       exists (select from pg_locks l where l.granted and l.locktype = 'relation' and l.pid is distinct from pg_backend_pid()
                 and l.database = (select oid from pg_database where datname = current_database())
                 and l.relation in (x.indexrelid, x.indrelid)
                 and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                                'AccessExclusiveLock')) as being_built,
       case when x.of_toast or w.columns >= cardinality(x.indkey::int2[]) then
           -- 4: line pointer, 8: header of an entry, 8 more where it can have nulls; 40: header and special space of a
           -- page. An entry of a TOAST table's index holds an oid and a number. 2: the first page and the root.
           (2 + ceil(greatest(x.reltuples, 0)
                     * (4 + 8 + case when w.nulls then 8 else 0 end
                        + case when x.of_toast then 8 else ceil(w.width / 8.0) * 8 end)
                     / ((s.block - 40) * x.fillfactor))) * s.block end as needed_bytes
from indexes x
join pg_am a on a.oid = x.relam
cross join settings s
left join lateral (
    select count(*) as columns, bool_or(null_frac > 0) as nulls, sum((1 - null_frac) * avg_width) as width
    from (select null_frac, avg_width from pg_stats
          where schemaname = x.table_schema and tablename = x.table_name and not inherited
            and attname in (select attname from pg_attribute where attrelid = x.indrelid and attnum = any (x.indkey::int2[]))
          union all
          -- Statistics of expressions stand under the name of the index.
          select null_frac, avg_width from pg_stats
          where schemaname = x.nspname and tablename = x.relname) p
    where x.bytes >= %(min_bytes)s and a.amname = 'btree' and not x.of_toast
) w on true
order by x.nspname, x.relname
