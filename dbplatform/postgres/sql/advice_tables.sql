-- Purpose: every table of users with its size, its rows and its writes.
-- Parameters: none.
-- Lock: none beside the catalog's: sizes are those of the last vacuum or ANALYZE.
-- First version: 14.
-- Source: PostgreSQL manual, pg_class, pg_stat_all_tables.
select c.oid::bigint as oid, n.nspname as schema, c.relname as name, c.relkind = 'p' as partitioned,
       c.relispartition as partition,
       case when c.relispartition then pg_partition_root(c.oid)::bigint end as root, greatest(c.reltuples, 0)::float8 as planned_rows, c.relpages as pages,
       greatest(pg_stat_get_live_tuples(c.oid), 0)::float8 as live,
       greatest(pg_stat_get_dead_tuples(c.oid), 0)::float8 as dead,
       pg_stat_get_tuples_inserted(c.oid)::float8 as inserted, pg_stat_get_tuples_updated(c.oid)::float8 as updated,
       pg_stat_get_tuples_deleted(c.oid)::float8 as deleted,
       pg_stat_get_tuples_hot_updated(c.oid)::float8 as hot_updated,
       (select coalesce(jsonb_object_agg(option_name, option_value), '{}')
        from pg_options_to_table(c.reloptions)) as options
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_'
  and n.nspname not in ('information_schema', 'dbplatform')
