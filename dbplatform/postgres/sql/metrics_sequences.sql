-- Purpose: how far each sequence has come towards its end. One row; the list has at most ten entries.
-- Parameters: none.
-- Lock: the weakest (ROW EXCLUSIVE) on each sequence for the moment in which it is read.
-- First version: 14.
-- Source: PostgreSQL manual, pg_sequence, pg_sequence_last_value. A sequence that feeds a smaller column ends where the
--         column's type ends; one that cycles has no end. One that ends where bigint ends is not read: at a million a
--         second it lasts for 292,000 years.
with ending as materialized (
    select c.oid, n.nspname, c.relname, q.seqincrement > 0 as up, q.seqmin, q.seqmax,
           -- Looked up one by one: a join would read all columns of all tables.
           (select case a.atttypid when 21 then 32767 when 23 then 2147483647 end from pg_attribute a
            where a.attrelid = d.refobjid and a.attnum = d.refobjsubid) as type_max
    from pg_sequence q
    join pg_class c on c.oid = q.seqrelid
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid
         and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
    where not q.seqcycle and c.relpersistence <> 't' and (c.relpersistence = 'p' or not pg_is_in_recovery())
), known as materialized (
    select *, least(seqmax, type_max) as top, greatest(seqmin, -type_max - 1) as bottom,
           has_sequence_privilege(oid, 'select, usage') as readable
    from ending
    where (up and least(seqmax, type_max) < 9223372036854775807)
       or (not up and greatest(seqmin, -type_max - 1) > -9223372036854775808)
), used as (
    select *, case when readable then pg_sequence_last_value(oid) end as last from known
), measured as materialized (
    select *, format('%I.%I', nspname, relname) as name,
           case when up then (last - seqmin)::numeric / nullif(top - seqmin::numeric, 0)
                else (seqmax - last)::numeric / nullif(seqmax - bottom::numeric, 0) end as ratio from used
)
select count(*) as sequences, count(*) filter (where not readable) as hidden,
       string_agg(distinct quote_ident(nspname), ', ') filter (where not readable) as schemas,
       (select array[name, ratio::text, last::text] from measured
        where ratio is not null order by ratio desc, 1 limit 1) as worst,
       (select jsonb_agg(l) from (select name, round(ratio, 4) as used, last,
                                         case when up then top else bottom end as "end" from measured
                                  where ratio is not null order by ratio desc, name limit 10) l) as nearest
from measured
