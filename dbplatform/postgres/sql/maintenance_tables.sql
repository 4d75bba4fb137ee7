-- Purpose: tables, materialized views and partitioned tables, with all that says whether each wants ANALYZE, VACUUM or to
--          be written anew, and who may do that. One row each.
-- Parameters: %(only)s: oids of the tables; null: all. %(min_bytes)s: the bloat of smaller ones is not estimated.
-- Lock: ACCESS SHARE on each table for the moment in which its size is read; one that somebody holds or wants in ACCESS
--       EXCLUSIVE mode is not touched: its size is that of the last vacuum or ANALYZE.
-- First version: 14.
-- Source: PostgreSQL manual, "Routine Vacuuming", pg_stat_all_tables, "Database Object Size Functions"; bloat: what the
--         rows need by pg_stats, as in metrics_tables.sql.
with locked as materialized (
    select relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null and pid <> pg_backend_pid()
), settings as materialized (
    select current_setting('autovacuum_freeze_max_age')::float8 as freeze_max,
           current_setting('autovacuum_multixact_freeze_max_age')::float8 as multixact_max,
           current_setting('autovacuum_vacuum_insert_threshold')::float8 as insert_base,
           current_setting('autovacuum_vacuum_insert_scale_factor')::float8 as insert_scale,
           current_setting('autovacuum_vacuum_threshold')::float8 as vacuum_base,
           current_setting('autovacuum_vacuum_scale_factor')::float8 as vacuum_scale,
           current_setting('autovacuum_analyze_threshold')::float8 as analyze_base,
           current_setting('autovacuum_analyze_scale_factor')::float8 as analyze_scale,
           current_setting('block_size')::float8 as block,
           current_setting('server_version_num')::int as version,
           pg_has_role((select datdba from pg_database where datname = current_database()), 'usage') as owns_database
), tables as materialized (
    select c.oid, n.nspname, c.relname, c.relkind, c.reltuples, c.relpages, c.relallvisible, c.relowner, c.relisshared,
           c.relispartition, c.reltoastrelid, c.reloptions,
           greatest(pg_stat_get_live_tuples(c.oid), 0)::float8 as live,
           greatest(pg_stat_get_dead_tuples(c.oid), 0)::float8 as dead,
           greatest(pg_stat_get_mod_since_analyze(c.oid), 0)::float8 as changed,
           greatest(pg_stat_get_ins_since_vacuum(c.oid), 0)::float8 as inserted,
           (pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid))::float8 as rewritten,
           extract(epoch from greatest(pg_stat_get_last_vacuum_time(c.oid),
                                       pg_stat_get_last_autovacuum_time(c.oid)))::float8 as vacuumed_at,
           extract(epoch from greatest(pg_stat_get_last_analyze_time(c.oid),
                                       pg_stat_get_last_autoanalyze_time(c.oid)))::float8 as analyzed_at,
           case when c.relkind in ('r', 'm') then
               greatest(age(c.relfrozenxid), coalesce(age(t.relfrozenxid), 0))::float8 end as xid_age,
           case when c.relkind in ('r', 'm') then
               greatest(mxid_age(c.relminmxid), coalesce(mxid_age(t.relminmxid), 0))::float8 end as multixact_age,
           case when c.relkind = 'p' then 0
                when c.oid in (select relation from locked) then c.relpages * s.block
                else coalesce(pg_relation_size(c.oid), 0) end as bytes,
           (select coalesce(jsonb_object_agg(option_name, option_value), '{}')
            from pg_options_to_table(c.reloptions)) as options
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_class t on t.oid = c.reltoastrelid
    cross join settings s
    where c.relkind in ('r', 'm', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_(toast|temp)'
      and (%(only)s::oid[] is null or c.oid = any (%(only)s::oid[]))
), rows as materialized (
    -- What is counted began with the statistics: until VACUUM or ANALYZE has come, a table may have more rows than that.
    select t.*, case when relkind <> 'p' and live > 0 and coalesce(vacuumed_at, analyzed_at) is not null then live
                     else greatest(reltuples, live, 0) end as rows,
           coalesce((options ->> 'fillfactor')::float8, 100) as fillfactor
    from tables t
)
select r.oid::bigint as oid, r.nspname as schema, r.relname as name, r.relkind::text as kind,
       r.nspname in ('pg_catalog', 'information_schema') as system, r.relisshared as shared, r.options,
       r.rows, r.live, r.dead, r.changed, r.inserted, r.rewritten, r.vacuumed_at, r.analyzed_at, r.xid_age, r.multixact_age,
       r.bytes::bigint as bytes, r.reltuples::float8 as counted_rows,
       least(s.freeze_max, (r.options ->> 'autovacuum_freeze_max_age')::float8) as freeze_max,
       least(s.multixact_max, (r.options ->> 'autovacuum_multixact_freeze_max_age')::float8) as multixact_max,
       coalesce((r.options ->> 'autovacuum_vacuum_insert_threshold')::float8, s.insert_base)
           + coalesce((r.options ->> 'autovacuum_vacuum_insert_scale_factor')::float8, s.insert_scale) * r.rows
           as insert_limit,
       coalesce((r.options ->> 'autovacuum_vacuum_threshold')::float8, s.vacuum_base)
           + coalesce((r.options ->> 'autovacuum_vacuum_scale_factor')::float8, s.vacuum_scale) * r.rows as vacuum_limit,
       coalesce((r.options ->> 'autovacuum_analyze_threshold')::float8, s.analyze_base)
           + coalesce((r.options ->> 'autovacuum_analyze_scale_factor')::float8, s.analyze_scale) * r.rows
           as analyze_limit,
       case when r.relpages > 0 then 1 - least(r.relallvisible::float8 / r.relpages, 1) else 1 end as not_visible,
       r.analyzed_at is not null
           or exists (select from pg_stats p where p.schemaname = r.nspname and p.tablename = r.relname
                                               and p.inherited = (r.relkind = 'p')) as ever_analyzed,
       (select array_agg(relid::oid::bigint) from pg_partition_ancestors(r.oid) where relid <> r.oid) as ancestors,
       case when r.relkind = 'p' then
           (select array_agg(relid::oid::bigint) from pg_partition_tree(r.oid) where isleaf) end as leaves,
       pg_has_role(r.relowner, 'usage') as owned,
       pg_has_role(r.relowner, 'usage') or (s.owns_database and not r.relisshared)
           or case when s.version >= 170000 then has_table_privilege(r.oid, 'maintain') else false end as may_vacuum,
       exists (select from pg_index i where i.indrelid = r.oid and i.indisvalid and i.indisunique and i.indimmediate
                 and i.indpred is null and i.indexprs is null
                 and not exists (select from pg_attribute a where a.attrelid = r.oid and a.attnum = any (i.indkey::int2[])
                                                             and not a.attnotnull)) as has_key,
       -- What a killed pg_repack leaves, and whether one is at work: it holds an advisory lock of these keys.
       to_regclass('repack.log_' || r.oid) is not null or to_regclass('repack.table_' || r.oid) is not null
           or exists (select from pg_trigger g where g.tgrelid = r.oid and g.tgname in ('repack_trigger', 'z_repack_trigger'))
           as repack_remains,
       exists (select from pg_locks l where l.locktype = 'advisory' and l.objsubid = 2 and l.classid = 16185446
                 and l.objid::bigint = (r.oid::bigint + 2147483648) %% 4294967296
                 and l.database = (select oid from pg_database where datname = current_database())) as repacking,
       r.fillfactor / 100 as fillfactor,
       case when w.columns > 0 then
           ceil(r.rows * (4 + ceil((23 + case when w.nulls then (7 + w.columns) / 8 else 0 end) / 8.0) * 8
                          + ceil(w.width / 8.0) * 8)
                / ((s.block - 24) * r.fillfactor / 100)) * s.block end as needed_bytes
from rows r cross join settings s
left join lateral (
    select count(*) as columns, bool_or(null_frac > 0) as nulls, sum((1 - null_frac) * avg_width) as width
    from pg_stats p
    where p.schemaname = r.nspname and p.tablename = r.relname and not p.inherited and r.bytes >= %(min_bytes)s
) w on true
order by r.nspname, r.relname
