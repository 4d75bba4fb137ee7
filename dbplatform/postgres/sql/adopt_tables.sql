-- Purpose: what a database holds that may be adopted, one row for each table, view and materialized view that is neither
--          a partition nor of an extension: how large by the statistics, what its traffic was, and what the user may do.
--          Rows, pages and traffic of a partitioned table are those of its partitions.
-- Parameters: none.
-- Lock: none beyond ACCESS SHARE on the catalog: nothing here opens a table.
-- First version: 14.
-- Source: PostgreSQL manual, "pg_class", "pg_stat_all_tables".
with recursive relations as (
    select c.oid, c.relkind, c.relowner, n.nspname, c.relname, n.oid as schema_oid
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition and c.relpersistence <> 't'
      and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbplatform')
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
),
family (root, oid) as (
    select oid, oid from relations
    union all
    select f.root, i.inhrelid from family f join pg_inherits i on i.inhparent = f.oid
    join pg_class c on c.oid = i.inhrelid and c.relispartition
),
parts as (
    select f.root, c.oid, c.relkind, c.reltuples, has_table_privilege(c.oid, 'select') as readable,
           c.relpages + coalesce(t.relpages, 0)
               + coalesce((select sum(x.relpages) from pg_index i join pg_class x on x.oid = i.indexrelid
                           where i.indrelid = c.oid), 0) as pages,
           greatest(s.last_analyze, s.last_autoanalyze) as analyzed, s.n_tup_ins, s.n_tup_upd, s.n_tup_del
    from family f join pg_class c on c.oid = f.oid
    left join pg_class t on t.oid = c.reltoastrelid
    left join pg_stat_all_tables s on s.relid = c.oid
)
select r.oid::bigint as oid, r.nspname::text as schema, r.relname::text as name, r.relkind::text as kind,
       has_schema_privilege(r.schema_oid, 'usage') and bool_and(p.readable) as readable,
       pg_has_role(r.relowner, 'usage') as owned,
       r.relkind in ('r', 'p') and row_security_active(r.oid) as secured,
       coalesce(sum(greatest(p.reltuples, 0)) filter (where p.relkind <> 'p'), 0)::bigint as rows,
       array_agg(p.oid::bigint) filter (where p.relkind = 'r' and p.reltuples < 0) as never_analyzed,
       coalesce(sum(p.pages), 0)::bigint * current_setting('block_size')::bigint as bytes,
       max(p.analyzed) as analyzed,
       coalesce(sum(p.n_tup_ins), 0)::bigint as inserted, coalesce(sum(p.n_tup_upd), 0)::bigint as updated,
       coalesce(sum(p.n_tup_del), 0)::bigint as deleted,
       count(*) filter (where p.oid <> r.oid) as partitions,
       case when r.relkind = 'p' then pg_get_partkeydef(r.oid) end as partitioned_by,
       (select a.attname::text from pg_partitioned_table k
        join pg_attribute a on a.attrelid = k.partrelid and a.attnum = k.partattrs[0]
        where k.partrelid = r.oid and k.partstrat = 'r' and k.partnatts = 1 and a.attnum > 0) as range_column,
       exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid
               where (i.inhparent = r.oid or i.inhrelid = r.oid) and not c.relispartition) as inherits,
       (select count(*) from pg_constraint k where k.contype = 'f' and k.confrelid = r.oid and k.conrelid <> r.oid
                                               and k.conparentid = 0) as referred_to_by
from relations r join parts p on p.root = r.oid
group by r.oid, r.schema_oid, r.nspname, r.relname, r.relkind, r.relowner
order by r.nspname, r.relname
