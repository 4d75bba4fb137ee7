-- What costs time and space. Queries are counted only where shared_preload_libraries names the extension.

create extension if not exists pg_stat_statements;

create view unused_indexes as
select s.schemaname, s.relname as tablename, s.indexrelname as indexname, s.idx_scan,
       pg_relation_size(s.indexrelid) as index_bytes
from pg_stat_user_indexes s
join pg_index i on i.indexrelid = s.indexrelid
where s.idx_scan = 0 and not i.indisunique and s.schemaname = 'public'
  and not exists (select from pg_constraint c where c.conindid = s.indexrelid);
comment on view unused_indexes is
    'Indexes that no query has used here since the statistics began, without those that keep a constraint.';

create view table_sizes as
select n.nspname as schemaname, c.relname as tablename, c.reltuples::bigint as estimated_rows,
       pg_table_size(c.oid) as table_bytes, pg_indexes_size(c.oid) as index_bytes,
       pg_total_relation_size(c.oid) as total_bytes
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname = 'public';
comment on view table_sizes is 'Tables and partitions with their size on disk.';
