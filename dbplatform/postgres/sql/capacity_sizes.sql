-- Purpose: sizes of all tables and indexes of the database, those of a partitioned one in one sum; how many transaction
--          ids were used; the size of all databases of the server, null where the user may not read that of one; the data
--          directory, null where the user may not know it. One row; of tables and of indexes the 200 largest.
-- Parameters: none.
-- Lock: ACCESS SHARE on each of the 2,000 largest relations for the moment in which its size is read; one that somebody
--       holds or wants in ACCESS EXCLUSIVE mode is not touched. The size of the others is that of the last vacuum or
--       ANALYZE.
-- First version: 14.
-- Source: PostgreSQL manual, "Database Object Size Functions", pg_partition_root, "Transaction ID and Snapshot
--         Information Functions".
with locked as materialized (
    select relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null
), relations as materialized (
    select c.oid, c.relkind = 'i' as is_index, coalesce(pg_partition_root(c.oid)::oid, c.oid) as root,
           (c.relpages + coalesce((select relpages from pg_class where oid = c.reltoastrelid), 0))::bigint
               * current_setting('block_size')::bigint as known_bytes
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm', 'i') and c.relpersistence <> 't'
      and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
), exact as materialized (
    select oid, case when is_index then pg_relation_size(oid) else pg_table_size(oid) end as bytes
    from (select oid, is_index from relations where oid not in (select relation from locked)
          order by known_bytes desc limit 2000) l
), sized as materialized (
    select r.is_index, format('%I.%I', n.nspname, c.relname) as name,
           sum(coalesce(e.bytes, r.known_bytes))::bigint as bytes
    from relations r
    left join exact e using (oid)
    join pg_class c on c.oid = r.root
    join pg_namespace n on n.oid = c.relnamespace
    group by 1, 2
)
select (select coalesce(jsonb_object_agg(name, bytes), '{}') from (
            select name, bytes from sized where not is_index order by bytes desc, name limit 200) l) as tables,
       (select coalesce(jsonb_object_agg(name, bytes), '{}') from (
            select name, bytes from sized where is_index order by bytes desc, name limit 200) l) as indexes,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xid,
       (select max(age(datfrozenxid)) from pg_database) as xid_age,
       current_setting('autovacuum_freeze_max_age')::bigint as freeze_max_age,
       (select case when bool_and(readable) then sum(case when readable then pg_database_size(oid) end)::bigint end
        from (select oid, has_database_privilege(oid, 'connect') or pg_has_role('pg_read_all_stats', 'usage') as readable
              from pg_database) d) as server_bytes,
       case when pg_has_role('pg_read_all_settings', 'usage') then current_setting('data_directory') end as data_directory
