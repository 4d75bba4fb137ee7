-- Purpose: everything that a migration can define in a database, one row each: kind, name, definition as text.
--          Two databases whose rows are equal have the same schema, whatever the order of columns.
-- Parameters: %(leave_out)s: names of schemas that are left out; %(history)s: the migrations' history table, or null.
-- Lock: ACCESS SHARE on the catalog. Run with an empty search_path, so that every name is written with its schema.
-- First version: 14.
-- Source: PostgreSQL manual, "System Catalogs" and "System Catalog Information Functions".
with schemas as (
    select oid, nspname, nspacl, nspowner from pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema' and nspname <> all (%(leave_out)s)
),
of_extension as (
    select classid, objid from pg_depend where deptype = 'e'
),
relations as (
    select c.*, format('%%I.%%I', s.nspname, c.relname) as name
    from pg_class c join schemas s on s.oid = c.relnamespace
    where (c.oid <> to_regclass(%(history)s)) is not false
      and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
),
routines as (
    select p.*, format('%%I.%%I(%%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name
    from pg_proc p join schemas s on s.oid = p.pronamespace
    where not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
),
types as (
    select t.*, format('%%I.%%I', s.nspname, t.typname) as name
    from pg_type t join schemas s on s.oid = t.typnamespace
    where not exists (select from of_extension e where e.classid = 'pg_type'::regclass and e.objid = t.oid)
)
select 'schema' as kind, format('%%I', nspname) as name, coalesce(nspacl::text, '') as definition from schemas
union all
select 'extension', format('%%I', extname), format('in %%I, version %%s', n.nspname, extversion)
from pg_extension x join pg_namespace n on n.oid = x.extnamespace
union all
select case relkind when 'r' then 'table' when 'p' then 'partitioned table' when 'f' then 'foreign table'
                    when 'v' then 'view' when 'm' then 'materialized view' end,
       name,
       concat_ws('; ',
           case relkind when 'v' then pg_get_viewdef(oid) when 'm' then pg_get_viewdef(oid) end,
           case when relkind = 'p' then 'partition by ' || pg_get_partkeydef(oid) end,
           case when relispartition then 'partition of '
               || (select inhparent::regclass from pg_inherits where inhrelid = relations.oid) || ' '
               || pg_get_expr(relpartbound, oid) end,
           case relpersistence when 'u' then 'unlogged' end,
           'with (' || array_to_string(reloptions, ', ') || ')',
           case when relrowsecurity then 'row level security' end,
           case when relforcerowsecurity then 'forced row level security' end,
           case when relreplident not in ('d', 'n') then 'replica identity ' || relreplident::text end,
           'grants ' || relacl::text)
from relations where relkind in ('r', 'p', 'f', 'v', 'm')
union all
select 'column', format('%%s.%%I', r.name, a.attname),
       concat_ws(' ',
           format_type(a.atttypid, a.atttypmod),
           case when a.attcollation not in (0, t.typcollation) then 'collate ' || a.attcollation::regcollation end,
           case when a.attnotnull then 'not null' end,
           case a.attgenerated when 's' then 'generated stored ' when 'v' then 'generated virtual '
                else 'default ' end || pg_get_expr(d.adbin, d.adrelid),
           case a.attidentity when 'a' then 'identity always' when 'd' then 'identity by default' end,
           case when a.attstorage <> t.typstorage then 'storage ' || a.attstorage::text end,
           'grants ' || a.attacl::text)
from relations r
join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where r.relkind in ('r', 'p', 'f', 'v', 'm', 'c')
union all
select 'constraint', format('%%s %%I', coalesce(r.name, t.name), k.conname),
       concat_ws(' ', pg_get_constraintdef(k.oid), case when not k.convalidated then 'not validated' end)
from pg_constraint k
left join relations r on r.oid = k.conrelid
left join types t on t.oid = k.contypid
where (r.oid is not null or t.oid is not null) and k.contype not in ('t', 'n')
union all
select 'index', r.name, concat_ws('; ', pg_get_indexdef(i.indexrelid), case when not i.indisvalid then 'invalid' end,
       case when i.indisclustered then 'clustered' end, case when i.indisreplident then 'replica identity' end)
from pg_index i join relations r on r.oid = i.indexrelid
where (i.indrelid <> to_regclass(%(history)s)) is not false
union all
select 'sequence', r.name, format('%%s from %%s to %%s start %%s increment %%s cache %%s%%s owned by %%s',
       s.seqtypid::regtype, s.seqmin, s.seqmax, s.seqstart, s.seqincrement, s.seqcache,
       case when s.seqcycle then ' cycle' else '' end,
       (select format('%%s.%%s', refobjid::regclass, a.attname) from pg_depend d
        join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.deptype in ('a', 'i')))
from pg_sequence s join relations r on r.oid = s.seqrelid
union all
select case prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end, name,
       case when prokind = 'a' then (select format('%%s, %%s, %%s, %%s', a.aggtransfn, a.aggfinalfn, a.aggtranstype::regtype,
                                                   a.agginitval) from pg_aggregate a where a.aggfnoid = routines.oid)
            else pg_get_functiondef(oid) end || coalesce(' grants ' || proacl::text, '')
from routines
union all
select 'trigger', format('%%s %%I', r.name, g.tgname), pg_get_triggerdef(g.oid) || ' ' || g.tgenabled::text
from pg_trigger g join relations r on r.oid = g.tgrelid where not g.tgisinternal
union all
select 'rule', format('%%s %%I', r.name, u.rulename), pg_get_ruledef(u.oid) || ' ' || u.ev_enabled::text
from pg_rewrite u join relations r on r.oid = u.ev_class where u.rulename <> '_RETURN'
union all
select 'policy', format('%%s %%I', r.name, p.polname),
       format('%%s %%s to %%s using %%s with check %%s', p.polpermissive, p.polcmd,
              array(select case when m = 0 then 'public' else m::regrole::text end from unnest(p.polroles) m order by 1),
              pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
from pg_policy p join relations r on r.oid = p.polrelid
union all
select case typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range' else 'type' end, name,
       concat_ws(' ',
           case typtype when 'e' then (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder)
                                       from pg_enum where enumtypid = types.oid)
                        when 'd' then format_type(typbasetype, typtypmod)
                        when 'r' then (select rngsubtype::regtype::text from pg_range where rngtypid = types.oid) end,
           case when typnotnull then 'not null' end, 'default ' || typdefault, 'grants ' || typacl::text)
from types where typtype in ('e', 'd', 'r') or (typtype = 'b' and typcategory <> 'A')
    or (typtype = 'c' and exists (select from relations r where r.oid = typrelid and r.relkind = 'c'))
union all
select 'statistics', format('%%I.%%I', s.nspname, x.stxname), pg_get_statisticsobjdef(x.oid)
from pg_statistic_ext x join schemas s on s.oid = x.stxnamespace
union all
select 'event trigger', format('%%I', evtname), format('%%s %%s %%s %%s', evtevent, evtfoid::regprocedure, evtenabled, evttags)
from pg_event_trigger e
where not exists (select from of_extension x where x.classid = 'pg_event_trigger'::regclass and x.objid = e.oid)
union all
select 'publication', format('%%I', pubname), format('all %%s insert %%s update %%s delete %%s truncate %%s: %%s',
       puballtables, pubinsert, pubupdate, pubdelete, pubtruncate,
       (select string_agg(prrelid::regclass::text, ', ' order by prrelid::regclass::text)
        from pg_publication_rel where prpubid = p.oid))
from pg_publication p
union all
select 'operator', format('%%I.%%s (%%s, %%s)', s.nspname, o.oprname, o.oprleft::regtype, o.oprright::regtype), o.oprcode::text
from pg_operator o join schemas s on s.oid = o.oprnamespace
where not exists (select from of_extension e where e.classid = 'pg_operator'::regclass and e.objid = o.oid)
union all
select 'collation', format('%%I.%%I', s.nspname, l.collname), format('%%s %%s %%s', l.collprovider, l.collcollate, l.collisdeterministic)
from pg_collation l join schemas s on s.oid = l.collnamespace
union all
select 'text search configuration', format('%%I.%%I', s.nspname, g.cfgname),
       (select string_agg(format('%%s %%s', m.maptokentype, m.mapdict::regdictionary), ', '
                          order by m.maptokentype, m.mapseqno) from pg_ts_config_map m where m.mapcfg = g.oid)
from pg_ts_config g join schemas s on s.oid = g.cfgnamespace
union all
select 'default privileges', format('%%s %%s %%s', defaclrole::regrole, coalesce(s.nspname, 'everywhere'), defaclobjtype), defaclacl::text
from pg_default_acl a left join schemas s on s.oid = a.defaclnamespace
union all
select 'comment', pg_describe_object(c.classoid, c.objoid, c.objsubid), c.description
from pg_description c
where (c.classoid, c.objoid) in (
    select 'pg_class'::regclass, oid from relations union all select 'pg_proc'::regclass, oid from routines
    union all select 'pg_type'::regclass, oid from types union all select 'pg_namespace'::regclass, oid from schemas
    union all select 'pg_constraint'::regclass, k.oid from pg_constraint k join relations r on r.oid = k.conrelid
    union all select 'pg_trigger'::regclass, g.oid from pg_trigger g join relations r on r.oid = g.tgrelid)
order by 1, 2
