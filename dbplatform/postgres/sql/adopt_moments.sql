-- Purpose: the columns of ordinary tables that hold times, and what the statistics know of them.
-- Parameters: %(tables)s: OIDs of the tables.
-- Lock: none beyond ACCESS SHARE on the catalog: nothing here opens a table.
-- First version: 14.
-- Source: PostgreSQL manual, "pg_stats": it shows what the user may read, and nothing of a table with row security.
select a.attrelid::bigint as oid, a.attname::text as name, a.attnotnull as not_null, coalesce(pg_get_expr(d.adbin, d.adrelid), '') as default_value,
       s.null_frac::float8 as null_fraction, abs(s.correlation)::float8 as correlation,
       s.histogram_bounds::text::text[] as histogram,
       exists (select from pg_index i join pg_class x on x.oid = i.indexrelid join pg_am m on m.oid = x.relam
               where i.indrelid = a.attrelid and i.indkey[0] = a.attnum and i.indisvalid and i.indpred is null
                 and m.amname = 'btree') as indexed
from pg_attribute a
join pg_class c on c.oid = a.attrelid
join pg_namespace n on n.oid = c.relnamespace
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
left join pg_stats s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = a.attname and not s.inherited
where a.attrelid::bigint = any(%(tables)s) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
  and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
order by a.attrelid, a.attnum
