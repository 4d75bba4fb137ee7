-- Purpose: tables and materialized views of the database: sizes, dead rows, what vacuum and ANALYZE owe, how they are
--          read, and the estimated bloat of the largest. One row; lists have at most ten entries.
-- Parameters: %(bloat_bytes)s: tables with a smaller heap are not estimated; %(since)s: when statistics began (epoch).
-- Lock: ACCESS SHARE on each of the hundred largest tables for the moment in which its size is read; one that somebody
--       holds or wants in ACCESS EXCLUSIVE mode is not touched. The size of the others is that of the last vacuum or
--       ANALYZE: to ask the file system about thousands of files is dearer than all the rest.
-- First version: 14.
-- Source: PostgreSQL manual, "Routine Vacuuming", "Database Object Size Functions"; bloat: what the rows need by
--         pg_stats (width, nulls), alignment and page headers, against what the heap has.
with locked as materialized (
    select relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null
), settings as materialized (
    select current_setting('autovacuum_vacuum_threshold')::float as vacuum_base,
           current_setting('autovacuum_vacuum_scale_factor')::float as vacuum_scale,
           nullif(current_setting('autovacuum_vacuum_max_threshold', true)::float, -1) as vacuum_most,
           current_setting('autovacuum_analyze_threshold')::float as analyze_base,
           current_setting('autovacuum_analyze_scale_factor')::float as analyze_scale,
           current_setting('block_size')::float as block
), tables as materialized (
    select c.oid, n.nspname, c.relname, format('%%I.%%I', n.nspname, c.relname) as name, c.reltuples, c.reloptions,
           greatest(pg_stat_get_live_tuples(c.oid), 0)::float as live,
           greatest(pg_stat_get_dead_tuples(c.oid), 0)::float as dead,
           pg_stat_get_mod_since_analyze(c.oid) as changed,
           pg_stat_get_numscans(c.oid) as seq_scans, pg_stat_get_tuples_returned(c.oid) as seq_rows,
           (c.relpages + coalesce((select relpages from pg_class where oid = c.reltoastrelid), 0)) * s.block
               as known_bytes
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, settings s
    where c.relkind in ('r', 'm') and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema')
), measured as materialized (
    -- Of a table that nobody has analyzed yet only the number of rows is known.
    select oid, pg_table_size(oid) as exact_bytes
    from (select oid from tables where oid not in (select relation from locked)
          order by greatest(known_bytes, case when reltuples < 0 then live * 100 end) desc limit 100) l
), owing as materialized (
    select t.*, m.exact_bytes, coalesce(m.exact_bytes, known_bytes) as bytes,
           dead > least(coalesce((o.o ->> 'autovacuum_vacuum_threshold')::float, s.vacuum_base)
                        + coalesce((o.o ->> 'autovacuum_vacuum_scale_factor')::float, s.vacuum_scale)
                        * greatest(reltuples, 0), s.vacuum_most) as vacuum_due,
           changed > coalesce((o.o ->> 'autovacuum_analyze_threshold')::float, s.analyze_base)
                     + coalesce((o.o ->> 'autovacuum_analyze_scale_factor')::float, s.analyze_scale)
                     * greatest(reltuples, 0) as analyze_due,
           case when reltuples < 0 or live > 0 then live else reltuples end as rows,
           coalesce((o.o ->> 'fillfactor')::float, 100) as fillfactor
    from settings s, tables t left join measured m on m.oid = t.oid,
         lateral (select jsonb_object_agg(option_name, option_value) as o from pg_options_to_table(t.reloptions)) o
), aged as materialized (
    -- Asked only of what is due: these are looked up one by one.
    select name, dead, changed, vacuum_due, analyze_due,
           extract(epoch from clock_timestamp()) - coalesce(extract(epoch from greatest(
               pg_stat_get_last_vacuum_time(oid), pg_stat_get_last_autovacuum_time(oid))), %(since)s) as vacuum_age,
           extract(epoch from clock_timestamp()) - coalesce(extract(epoch from greatest(
               pg_stat_get_last_analyze_time(oid), pg_stat_get_last_autoanalyze_time(oid))), %(since)s) as analyze_age
    from owing where vacuum_due or analyze_due
), large as materialized (
    select o.*, pg_relation_size(o.oid) as heap from owing o
    where exact_bytes >= %(bloat_bytes)s order by exact_bytes desc limit 20
), needed as (
    select l.name, l.heap, w.columns,
           ceil(l.rows * (4 + ceil((23 + case when w.nulls then (7 + w.columns) / 8 else 0 end) / 8.0) * 8
                          + ceil(w.width / 8.0) * 8)
                / ((s.block - 24) * l.fillfactor / 100)) * s.block as needs
    from large l, settings s,
         lateral (select count(*) as columns, bool_or(null_frac > 0) as nulls,
                         sum((1 - null_frac) * avg_width) as width
                  from pg_stats p where p.schemaname = l.nspname and p.tablename = l.relname) w
    where l.heap >= %(bloat_bytes)s
), bloated as (
    select name, heap, heap - least(needs, heap) as unused from needed where columns > 0
)
select pg_database_size(current_database()) as database_bytes,
       (select count(*) from tables) as tables,
       (select coalesce(sum(bytes), 0) from owing) as bytes,
       (select array[name, dead::text, (dead / (dead + live))::text] from owing where dead > 10000
        order by (dead > 100000 and dead / (dead + live) >= 0.3) desc, dead / (dead + live) desc, name limit 1) as dead,
       (select count(*) from aged where vacuum_due) as vacuum_due,
       (select array[name, dead::text, vacuum_age::text] from aged where vacuum_due
        order by vacuum_age desc, name limit 1) as vacuum_oldest,
       (select count(*) from aged where analyze_due) as analyze_due,
       (select array[name, changed::text, analyze_age::text] from aged where analyze_due
        order by analyze_age desc, name limit 1) as analyze_oldest,
       (select coalesce(sum(seq_scans), 0) from tables where live > 10000) as seq_scans,
       (select array[name, unused::text, (unused / heap)::text] from bloated
        order by (unused >= 200 * 1048576) desc, unused / heap desc, name limit 1) as bloated,
       (select count(*) from needed) as estimated,
       (select string_agg(name, ', ') from needed where columns = 0) as not_estimated,
       (select jsonb_agg(l) from (select name, bytes::bigint, rows::bigint from owing
                                  order by bytes desc, name limit 10) l) as largest_tables,
       (select jsonb_agg(l) from (select name, dead::bigint, live::bigint from owing where dead > 0
                                  order by dead desc, name limit 10) l) as dead_rows,
       (select jsonb_agg(l) from (select name, seq_scans as scans, seq_rows as rows from tables where seq_rows > 0
                                  order by seq_rows desc, name limit 10) l) as sequential_reads
