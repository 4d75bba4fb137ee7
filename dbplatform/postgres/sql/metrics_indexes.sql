-- Purpose: indexes of tables: sizes, use, those that are invalid or never used, and the estimated bloat of the largest
--          B-trees. One row; lists have at most ten entries.
-- Parameters: %(bloat_bytes)s: smaller indexes are not estimated.
-- Lock: ACCESS SHARE on each of the hundred largest indexes for the moment in which its size is read; one that somebody
--       holds or wants in ACCESS EXCLUSIVE mode is not touched. The size of the others is that of the last vacuum or
--       ANALYZE.
-- First version: 14.
-- Source: PostgreSQL manual, pg_index, pg_stat_all_indexes, "B-Tree Implementation". A deduplicated index is smaller
--         than its entries: its bloat is told too low, never too high.
with locked as materialized (
    select relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null
), known as materialized (
    select i.indexrelid, i.indrelid, i.indkey, format('%%I.%%I', n.nspname, c.relname) as name, n.nspname, c.relname,
           t.relname as table_name, c.relam, c.reltuples, i.indisunique or i.indisreplident or i.indisexclusion as needed,
           i.indisvalid and i.indisready and i.indislive as valid,
           pg_stat_get_numscans(i.indexrelid) as scans,
           pg_stat_get_blocks_fetched(i.indexrelid) as fetched, pg_stat_get_blocks_hit(i.indexrelid) as hit,
           pg_stat_get_live_tuples(i.indrelid) > 10000 as of_large_table,
           c.relpages * current_setting('block_size')::bigint as known_bytes
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_class t on t.oid = i.indrelid
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'i' and c.relpersistence <> 't'
      and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
), measured as materialized (
    select indexrelid, pg_relation_size(indexrelid) as exact_bytes
    from (select indexrelid from known where indexrelid not in (select relation from locked)
          order by known_bytes desc limit 100) l
), indexes as materialized (
    select k.*, coalesce(m.exact_bytes, k.known_bytes) as bytes
    from known k left join measured m on m.indexrelid = k.indexrelid
), invalid as (
    select * from indexes where not valid
      and not exists (select from pg_stat_progress_create_index p
                      where p.datname = current_database() and p.relid = indrelid)
), unused as (
    select * from indexes where valid and scans = 0 and bytes >= 10 * 1048576 and not needed
      and not exists (select from pg_constraint k where k.conindid = indexrelid)
), large as materialized (
    select * from indexes
    where valid and bytes >= %(bloat_bytes)s and reltuples > 0 and relam = (select oid from pg_am where amname = 'btree')
    order by bytes desc limit 20
), entries as (
    select l.name, l.bytes, w.columns, cardinality(l.indkey::int2[]) as keys,
           -- 4: line pointer, 8: header of an entry, 8 more where it can have nulls; 40: header and special space of a
           -- page, of which entries fill 90 %%.
           l.reltuples * (4 + 8 + case when w.nulls then 8 else 0 end + ceil(w.width / 8.0) * 8)
           / ((current_setting('block_size')::float - 40) * 0.9) * current_setting('block_size')::float as needs
    from large l,
         lateral (
             select count(*) as columns, bool_or(null_frac > 0) as nulls, sum((1 - null_frac) * avg_width) as width
             from (select null_frac, avg_width from pg_stats
                   where schemaname = l.nspname and tablename = l.table_name
                     and attname in (select attname from pg_attribute
                                     where attrelid = l.indrelid and attnum = any (l.indkey::int2[]))
                   union all
                   -- Statistics of expressions stand under the name of the index.
                   select null_frac, avg_width from pg_stats
                   where schemaname = l.nspname and tablename = l.relname) p) w
), bloated as (
    select name, bytes, bytes - least(needs, bytes) as unused from entries where columns >= keys
)
select count(*) as indexes, coalesce(sum(bytes), 0) as bytes,
       coalesce(sum(fetched), 0) as fetched, coalesce(sum(hit), 0) as hit,
       coalesce(sum(scans) filter (where of_large_table), 0) as scans,
       (select count(*) from invalid) as invalid, (select min(name) from invalid) as first_invalid,
       (select count(*) from unused) as unused, (select coalesce(sum(bytes), 0) from unused) as unused_bytes,
       (select name from unused order by bytes desc, name limit 1) as largest_unused,
       (select array[name, unused::text, (unused / bytes)::text] from bloated
        order by (unused >= 100 * 1048576) desc, unused / bytes desc, name limit 1) as bloated,
       (select count(*) from entries) as estimated,
       (select string_agg(name, ', ') from entries where columns < keys) as not_estimated,
       (select jsonb_agg(l) from (select name, bytes, scans from indexes order by bytes desc, name limit 10) l)
           as largest_indexes,
       (select jsonb_agg(l) from (select name, bytes from unused order by bytes desc, name limit 10) l) as unused_list,
       (select jsonb_agg(l) from (select name, bytes from invalid order by bytes desc, name limit 10) l) as invalid_list
from indexes
