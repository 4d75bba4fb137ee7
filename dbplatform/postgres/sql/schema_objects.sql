-- Purpose: everything that a migration can define in a database, one row each:
--            kind, name;
--            parent: kind and name of what it belongs to and goes with, such as its table;
--            parts: what defines it, as JSON of texts. Two databases with the same parts have the same schema, whatever
--                   the order of columns, and whoever owns them;
--            sql: the pieces of SQL that make, alter or remove it. They are not compared.
-- Parameters: %(leave_out)s: names of schemas that are left out;
--             %(history)s: the migrations' history table, or null; %(history_schema)s: its schema, which is not shown
--             itself; %(secret)s: which option of a foreign server is not shown;
--             %(partitioned)s: tables whose partitions are left out, because migrations do not make them.
-- Lock: ACCESS SHARE on the catalog. Run with an empty search_path, so that every name is written with its schema.
-- First version: 14.
-- Source: PostgreSQL manual, "System Catalogs" and "System Catalog Information Functions".
with schemas as (
    select oid, nspname, nspacl, nspowner, format('%%I', nspname) as name from pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema' and nspname <> all (%(leave_out)s)
),
of_extension as (
    select classid, objid from pg_depend where deptype = 'e'
),
left_out as (
    select to_regclass(%(history)s)::oid as oid
    union all
    select p.relid from unnest(%(partitioned)s::text[]) t, pg_partition_tree(to_regclass(t)) p where p.level > 0
),
relations as (
    select c.*, format('%%I.%%I', s.nspname, c.relname) as name,
           case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'i' then 'index' when 'I' then 'index'
                          when 'S' then 'sequence' when 'c' then 'type' else 'table' end as kind,
           'schema ' || s.name as of_schema
    from pg_class c join schemas s on s.oid = c.relnamespace left join pg_index i on i.indexrelid = c.oid
    where not exists (select from left_out l where l.oid = coalesce(i.indrelid, c.oid))
      and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
),
routines as (
    select p.*, format('%%I.%%I(%%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name,
           case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end as kind,
           'schema ' || s.name as of_schema
    from pg_proc p join schemas s on s.oid = p.pronamespace
    where not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
      -- The constructors of a range come with its type.
      and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
),
types as (
    select t.*, format('%%I.%%I', s.nspname, t.typname) as name,
           case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range' else 'type' end as kind,
           'schema ' || s.name as of_schema
    from pg_type t join schemas s on s.oid = t.typnamespace
    where not exists (select from of_extension e where e.classid = 'pg_type'::regclass and e.objid = t.oid)
      and (t.typtype in ('e', 'd', 'r') or (t.typtype = 'b' and t.typcategory <> 'A')
           or (t.typtype = 'c' and exists (select from relations r where r.oid = t.typrelid and r.relkind = 'c')))
),
sequences as (
    select s.*, d.refobjid as of_table, d.refobjsubid as of_column, d.deptype = 'i' as of_identity,
           case s.seqtypid when 'smallint'::regtype then 32767 when 'integer'::regtype then 2147483647
                           else 9223372036854775807 end as usual_max
    from pg_sequence s
    left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.seqrelid and d.deptype in ('a', 'i')
                         and d.refclassid = 'pg_class'::regclass
),
columns as (
    select c.*, concat_ws(' ', column_name, type, 'collate ' || "collation", 'generated always as (' || stored || ') stored',
                          'generated always as (' || virtual || ') virtual', 'default ' || "default",
                          'generated ' || identity, case when attnotnull then 'not null' end) as definition
    from (
        select a.attrelid, a.attnum, a.attnotnull, a.attacl, r.kind as of_kind, r.name as of_name, r.relowner,
               format('%%I', a.attname) as column_name, format('%%s.%%I', r.name, a.attname) as name,
               format_type(a.atttypid, a.atttypmod) as type,
               case when a.attcollation not in (0, t.typcollation) then a.attcollation::regcollation::text end as "collation",
               case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end as "default",
               case when a.attgenerated = 's' then pg_get_expr(d.adbin, d.adrelid) end as stored,
               case when a.attgenerated = 'v' then pg_get_expr(d.adbin, d.adrelid) end as virtual,
               case when a.attstorage <> t.typstorage
                    then case a.attstorage when 'p' then 'plain' when 'm' then 'main' when 'e' then 'external'
                                           else 'extended' end end as storage,
               case a.attcompression when 'p' then 'pglz' when 'l' then 'lz4' end as compression,
               nullif(a.attstattarget, -1) as statistics_target, a.attoptions,
               case when a.attidentity <> '' then
                   (select case a.attidentity when 'a' then 'always' else 'by default' end || ' as identity'
                           || coalesce(' (' || nullif(concat_ws(' ',
                                  'start with ' || nullif(q.seqstart, 1), 'increment by ' || nullif(q.seqincrement, 1),
                                  'minvalue ' || nullif(q.seqmin, 1), 'maxvalue ' || nullif(q.seqmax, q.usual_max),
                                  'cache ' || nullif(q.seqcache, 1), case when q.seqcycle then 'cycle' end), '') || ')', '')
                    from sequences q where q.of_table = a.attrelid and q.of_column = a.attnum and q.of_identity)
               end as identity,
               (select true from pg_constraint k where k.conrelid = a.attrelid and k.contype = 'n' and not k.convalidated
                                                   and k.conkey = array[a.attnum]) as unproven
        from relations r
        join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
        join pg_type t on t.oid = a.atttypid
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where r.relkind in ('r', 'p', 'f', 'v', 'm', 'c')
    ) c
),
relation_parts as (
    select r.*, (select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
                 where i.indrelid = r.oid and i.indisreplident) as identity_index,
           case when relkind = 'p' then pg_get_partkeydef(oid) end as partitioned_by,
           case when relispartition then (select format('of %%s %%s', inhparent::regclass, pg_get_expr(relpartbound, r.oid))
                                          from pg_inherits where inhrelid = r.oid) end as partition,
           case when not relispartition then (select string_agg(inhparent::regclass::text, ', ' order by inhseqno)
                                              from pg_inherits where inhrelid = r.oid) end as inherits,
           (select string_agg(c.definition, ', ' order by c.attnum) from columns c where c.attrelid = r.oid) as columns,
           case when relkind in ('v', 'm') then rtrim(pg_get_viewdef(oid), ';') end as query,
           (select format('%%I%%s', f.srvname, ' (' || (
                select string_agg(regexp_replace(o, %(secret)s, '\1=(hidden)'), ', ' order by o) from unnest(ft.ftoptions) o) || ')')
            from pg_foreign_table ft join pg_foreign_server f on f.oid = ft.ftserver where ft.ftrelid = r.oid) as server,
           ' with (' || array_to_string(reloptions, ', ') || ')' as with_options
    from relations r where relkind in ('r', 'p', 'f', 'v', 'm')
),
constraints as (
    select k.oid, k.contype, k.convalidated, k.conindid, coalesce(r.name, t.name) as of_name,
           coalesce(r.kind, t.kind) as of_kind, r.relkind, format('%%s %%I', coalesce(r.name, t.name), k.conname) as name,
           format('%%I', k.conname) as constraint_name, k.confrelid,
           regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '') as definition
    from pg_constraint k
    left join relations r on r.oid = k.conrelid
    left join types t on t.oid = k.contypid
    where (r.oid is not null or t.oid is not null) and k.contype not in ('t', 'n')
      and k.conparentid = 0 and (k.conislocal or k.coninhcount = 0)
),
triggers as (
    select g.*, r.kind as of_kind, r.name as of_name, format('%%s %%I', r.name, g.tgname) as name
    from pg_trigger g join relations r on r.oid = g.tgrelid where not g.tgisinternal and g.tgparentid = 0
      -- The platform's own, of live tables, belong to no migration.
      and not exists (select from pg_proc f where f.oid = g.tgfoid and f.pronamespace = to_regnamespace('dbplatform'))
),
rules as (
    select u.*, r.kind as of_kind, r.name as of_name, format('%%s %%I', r.name, u.rulename) as name
    from pg_rewrite u join relations r on r.oid = u.ev_class where u.rulename <> '_RETURN'
),
policies as (
    select p.*, r.kind as of_kind, r.name as of_name, format('%%s %%I', r.name, p.polname) as name
    from pg_policy p join relations r on r.oid = p.polrelid
),
access as (
    select 'schema' as kind, name, 'schema ' || name as object, null as of_columns,
           coalesce(nspacl, acldefault('n', nspowner)) as acl, nspowner as owner
    from schemas
    union all
    select kind, name, 'table ' || name, null, coalesce(relacl, acldefault('r', relowner)), relowner
    from relations where relkind in ('r', 'p', 'f', 'v', 'm')
    union all
    select kind, name, 'sequence ' || name, null, coalesce(relacl, acldefault('s', relowner)), relowner
    from relations r where relkind = 'S' and not exists (select from sequences s where s.seqrelid = r.oid and s.of_identity)
    union all
    select 'column', name, 'table ' || of_name, column_name, attacl, relowner from columns where attacl is not null
    union all
    select kind, name, 'routine ' || name, null, coalesce(proacl, acldefault('f', proowner)), proowner from routines
    union all
    select kind, name, 'type ' || name, null, coalesce(typacl, acldefault('T', typowner)), typowner from types
),
default_access as (
    select a.defaclobjtype, a.defaclrole, n.nspname, x.grantee,
           array_agg(x.privilege_type order by x.privilege_type) filter (where x.granted) as granted,
           array_agg(x.privilege_type order by x.privilege_type) filter (where not x.granted) as usual
    from pg_default_acl a
    left join pg_namespace n on n.oid = a.defaclnamespace,
    lateral (
        select grantee, privilege_type, true as granted from aclexplode(a.defaclacl)
        union all
        select grantee, privilege_type, false
        from aclexplode(acldefault(case a.defaclobjtype when 'S' then 's' else a.defaclobjtype end, a.defaclrole))
        where a.defaclnamespace = 0
    ) x
    group by 1, 2, 3, 4
),
commented as (
    select 'pg_class'::regclass as classoid, oid as objoid, 0 as objsubid, kind, name from relations
    union all
    select 'pg_class'::regclass, attrelid, attnum, case when of_kind in ('table', 'type') then 'column' else of_kind end,
           case when of_kind in ('table', 'type') then name else of_name end from columns
    union all select 'pg_proc'::regclass, oid, 0, kind, name from routines
    union all select 'pg_type'::regclass, oid, 0, kind, name from types where typtype <> 'c'
    union all select 'pg_namespace'::regclass, oid, 0, 'schema', name from schemas
    union all select 'pg_constraint'::regclass, oid, 0, 'constraint', name from constraints
    union all select 'pg_trigger'::regclass, oid, 0, 'trigger', name from triggers
    union all select 'pg_rewrite'::regclass, oid, 0, 'rule', name from rules
    union all select 'pg_policy'::regclass, oid, 0, 'policy', name from policies
),
comments as (
    select c.kind, c.name, d.description,
           case when i.type like '%%column' then 'column ' || i.identity
                when i.type = 'table constraint' then 'constraint ' || i.identity
                when i.type = 'domain constraint' then 'constraint ' || regexp_replace(i.identity, ' on (?!.* on )', ' on domain ')
                when i.type = 'composite type' then 'type ' || i.identity
                else i.type || ' ' || i.identity end as object
    from commented c join pg_description d using (classoid, objoid, objsubid),
         pg_identify_object(c.classoid, c.objoid, c.objsubid) i
),
rows (kind, name, parent, parts, sql) as (
    select 'schema', name, null, '{}'::json, json_build_object('make', 'create schema ' || name)
    from schemas where nspname is distinct from %(history_schema)s
    union all
    select 'extension', format('%%I', extname), null, json_build_object('schema', n.nspname),
           json_build_object('make', format('create extension %%I with schema %%I', extname, n.nspname), 'version', extversion)
    from pg_extension x join pg_namespace n on n.oid = x.extnamespace
    union all
    select kind, name, coalesce((select 'table ' || inhparent::regclass from pg_inherits
                                 where relispartition and inhrelid = relation_parts.oid), of_schema),
           json_build_object(
               'definition', query,
               'columns', case when relkind in ('v', 'm') then columns end,
               'partitioned by', partitioned_by, 'partition', partition, 'inherits', inherits, 'server', server,
               'unlogged', case relpersistence when 'u' then 'yes' end,
               'options', nullif(array_to_string(array(select o from unnest(reloptions) o order by 1), ', '), ''),
               'row level security', case when relrowsecurity then 'yes' end,
               'forced row level security', case when relforcerowsecurity then 'yes' end,
               'replica identity', case relreplident when 'n' then 'nothing' when 'f' then 'full'
                                                     when 'i' then format('using index %%I', identity_index) end),
           json_build_object(
               'alter', 'alter ' || case relkind when 'f' then 'foreign table' else kind end || ' ' || name,
               'make', case
                   when relkind = 'v' then format('create or replace view %%s%%s as %%s', name, with_options, query)
                   when relkind = 'm' then format('create materialized view %%s%%s as %%s', name, with_options, query)
                   when relkind = 'f' or inherits is not null then null
                   else concat('create ', case relpersistence when 'u' then 'unlogged ' end, 'table ', name,
                               coalesce(' partition ' || partition, ' (' || coalesce(columns, '') || ')'),
                               ' partition by ' || partitioned_by, with_options) end,
               'after', concat_ws(';' || chr(10),
                   case when relrowsecurity then format('alter table %%s enable row level security', name) end,
                   case when relforcerowsecurity then format('alter table %%s force row level security', name) end))
    from relation_parts
    union all
    select 'column', name, of_kind || ' ' || of_name,
           json_build_object(
               'type', type, 'collation', "collation", 'default', "default", 'stored expression', stored,
               'virtual expression', virtual, 'identity', identity, 'not null',
               case when attnotnull then case when unproven then 'not validated' else 'yes' end end,
               'storage', storage, 'compression', compression, 'statistics target', statistics_target::text,
               -- Newer minor versions count a column's changes there.
               'options', (select string_agg(o, ', ') from unnest(attoptions) o where o not like 'pg\_attver=%%')),
           json_build_object('make', case of_kind when 'table' then format('alter table %%s add column %%s', of_name, definition) end,
                             'alter', case of_kind when 'table' then format('alter table %%s alter column %%s', of_name, column_name) end)
    from columns where of_kind in ('table', 'type')
    union all
    select 'constraint', name, of_kind || ' ' || of_name,
           json_build_object('definition', definition, 'not valid', case when not convalidated then 'yes' end, 'disabled', (
               select 'yes' from pg_trigger g where g.tgconstraint = constraints.oid and g.tgenabled = 'D' limit 1)),
           json_build_object(
               'alter', concat('alter ', of_kind, ' ', of_name), 'constraint', constraint_name,
               'type', contype, 'index', case when contype in ('p', 'u') and relkind = 'r' then pg_get_indexdef(conindid) end,
               'references', 'table ' || nullif(confrelid, 0)::regclass, 'definition', definition, 'partitioned', relkind = 'p')
    from constraints
    union all
    -- An index that stands behind a constraint is defined by that.
    select 'index', r.name, coalesce('constraint ' || k.name, o.kind || ' ' || o.name),
           json_build_object(
               'definition', case when k.oid is null then pg_get_indexdef(i.indexrelid) end,
               'options', case when k.oid is not null then array_to_string(r.reloptions, ', ') end,
               'invalid', case when not i.indisvalid then 'yes' end,
               'clustered', case when i.indisclustered then 'yes' end),
           json_build_object(
               'make', case when k.oid is null and o.relkind = 'p' then replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
                            when k.oid is null then regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE (UNIQUE )?INDEX ',
                                                                   'CREATE \1INDEX CONCURRENTLY ') end,
               'drop', case when k.oid is null and o.relkind <> 'p' then 'drop index concurrently ' || r.name end,
               'alter', 'alter index ' || r.name, 'cluster', format('alter table %%s cluster on %%I', o.name, r.relname))
    from pg_index i
    join relations r on r.oid = i.indexrelid
    join relations o on o.oid = i.indrelid
    left join constraints k on k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')
    where not r.relispartition
    union all
    select 'sequence', r.name, coalesce('column ' || c.name, r.of_schema),
           json_build_object('type', s.seqtypid::regtype::text, 'start', s.seqstart::text, 'increment', s.seqincrement::text,
                             'minvalue', s.seqmin::text, 'maxvalue', s.seqmax::text, 'cache', s.seqcache::text,
                             'cycle', case when s.seqcycle then 'yes' end, 'owner', c.name),
           json_build_object(
               'make', format('create sequence %%s as %%s start %%s increment %%s minvalue %%s maxvalue %%s cache %%s%%s', r.name,
                              s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                              case when s.seqcycle then ' cycle' end),
               'after', format('alter sequence %%s owned by %%s', r.name, c.name)
                        || format(E';\nselect setval(%%L, coalesce(max(%%s), %%s), count(%%s) > 0) from %%s', r.name, c.column_name,
                                  s.seqstart, c.column_name, c.of_name),
               'alter', 'alter sequence ' || r.name)
    from sequences s
    join relations r on r.oid = s.seqrelid
    left join columns c on c.attrelid = s.of_table and c.attnum = s.of_column
    where s.of_identity is not true and not exists (select from left_out l where l.oid = s.of_table)
    union all
    select kind, name, of_schema,
           json_build_object('result', pg_get_function_result(oid), 'definition',
               case when prokind <> 'a' then pg_get_functiondef(oid)
                    else (select format('%%s, %%s, %%s, %%s', a.aggtransfn, a.aggfinalfn, a.aggtranstype::regtype, a.agginitval)
                          from pg_aggregate a where a.aggfnoid = routines.oid) end),
           json_build_object('make', case when prokind <> 'a' then rtrim(pg_get_functiondef(oid), E'\n') end)
    from routines
    union all
    select 'trigger', name, of_kind || ' ' || of_name,
           json_build_object('definition', pg_get_triggerdef(oid), 'state',
               case tgenabled when 'D' then 'disabled' when 'R' then 'enabled on replicas' when 'A' then 'always enabled'
                              else 'enabled' end),
           json_build_object('make', pg_get_triggerdef(oid), 'drop', format('drop trigger %%I on %%s', tgname, of_name),
                             'alter', 'alter table ' || of_name, 'named', format('trigger %%I', tgname))
    from triggers
    union all
    select 'rule', name, of_kind || ' ' || of_name,
           json_build_object('definition', pg_get_ruledef(oid), 'state',
               case ev_enabled when 'D' then 'disabled' when 'R' then 'enabled on replicas' when 'A' then 'always enabled'
                               else 'enabled' end),
           json_build_object('make', regexp_replace(rtrim(pg_get_ruledef(oid), ';'), '^CREATE RULE', 'CREATE OR REPLACE RULE'),
                             'alter', 'alter table ' || of_name, 'named', format('rule %%I', rulename))
    from rules
    union all
    select 'policy', p.name, of_kind || ' ' || of_name,
           json_build_object('definition', w.words),
           json_build_object('make', format('create policy %%I on %%s %%s', polname, of_name, w.words),
                             'drop', format('drop policy %%I on %%s', polname, of_name))
    from policies p, lateral (select concat(
        'as ', case when polpermissive then 'permissive' else 'restrictive' end,
        ' for ', case polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete'
                             else 'all' end,
        ' to ', (select string_agg(case when m = 0 then 'public' else m::regrole::text end, ', '
                                   order by m <> 0, m::regrole::text collate "C")
                 from unnest(polroles) m),
        ' using (' || pg_get_expr(polqual, polrelid) || ')',
        ' with check (' || pg_get_expr(polwithcheck, polrelid) || ')') as words) w
    union all
    select kind, name, of_schema,
           json_build_object(
               'values', case typtype when 'e' then w.labels end,
               'type', case typtype when 'd' then format_type(typbasetype, typtypmod)
                                    when 'r' then (select rngsubtype::regtype::text from pg_range where rngtypid = t.oid) end,
               'collation', case when typtype = 'd' and typcollation <> 0 and typcollation <>
                                      (select typcollation from pg_type b where b.oid = t.typbasetype)
                                 then typcollation::regcollation::text end,
               'not null', case when typnotnull then 'yes' end, 'default', typdefault),
           json_build_object('alter', concat('alter ', case typtype when 'd' then 'domain ' else 'type ' end, name),
               'labels', array(select enumlabel from pg_enum where enumtypid = t.oid order by enumsortorder),
               'make', case
                   when typtype = 'e' then format('create type %%s as enum (%%s)', name, w.labels)
                   when typtype = 'c' then format('create type %%s as (%%s)', name,
                       (select string_agg(c.definition, ', ' order by c.attnum) from columns c where c.attrelid = typrelid))
                   when typtype = 'd' then concat('create domain ', name, ' as ', format_type(typbasetype, typtypmod),
                                                  ' default ' || typdefault, case when typnotnull then ' not null' end) end)
    from types t, lateral (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder) as labels
                           from pg_enum where enumtypid = t.oid) w
    union all
    select 'statistics', format('%%I.%%I', s.nspname, x.stxname), r.kind || ' ' || r.name,
           json_build_object('definition', pg_get_statisticsobjdef(x.oid)),
           json_build_object('make', pg_get_statisticsobjdef(x.oid),
                             'drop', format('drop statistics %%I.%%I', s.nspname, x.stxname))
    from pg_statistic_ext x join schemas s on s.oid = x.stxnamespace join relations r on r.oid = x.stxrelid
    union all
    select 'event trigger', format('%%I', evtname), null,
           json_build_object('definition', w.words, 'state',
               case evtenabled when 'D' then 'disabled' when 'R' then 'enabled on replicas' when 'A' then 'always enabled'
                               else 'enabled' end),
           json_build_object('make', format('create event trigger %%I %%s', evtname, w.words),
                             'drop', format('drop event trigger %%I', evtname),
                             'alter', format('alter event trigger %%I', evtname), 'named', '')
    from pg_event_trigger e, lateral (select concat(
        'on ', evtevent,
        ' when tag in (' || (select string_agg(quote_literal(g), ', ' order by g) from unnest(evttags) g) || ')',
        ' execute function ', evtfoid::regproc, '()') as words) w
    where not exists (select from of_extension x where x.classid = 'pg_event_trigger'::regclass and x.objid = e.oid)
    union all
    select 'publication', format('%%I', pubname), null,
           json_build_object('definition', format('all %%s insert %%s update %%s delete %%s truncate %%s: %%s',
               puballtables, pubinsert, pubupdate, pubdelete, pubtruncate,
               (select string_agg(prrelid::regclass::text, ', ' order by prrelid::regclass::text)
                from pg_publication_rel where prpubid = p.oid))), '{}'
    from pg_publication p
    union all
    select 'foreign server', format('%%I', srvname), null,
           json_build_object('wrapper', fdwname, 'options', (
               select string_agg(regexp_replace(o, %(secret)s, '\1=(hidden)'), ', ' order by o) from unnest(srvoptions) o)), '{}'
    from pg_foreign_server f join pg_foreign_data_wrapper w on w.oid = f.srvfdw
    where not exists (select from of_extension x where x.classid = 'pg_foreign_server'::regclass and x.objid = f.oid)
    union all
    select 'operator', format('%%I.%%s (%%s, %%s)', s.nspname, o.oprname, o.oprleft::regtype, o.oprright::regtype), null,
           json_build_object('definition', o.oprcode::text), '{}'
    from pg_operator o join schemas s on s.oid = o.oprnamespace
    where not exists (select from of_extension e where e.classid = 'pg_operator'::regclass and e.objid = o.oid)
    union all
    select 'collation', format('%%I.%%I', s.nspname, l.collname), null,
           json_build_object('definition', format('%%s %%s %%s', l.collprovider, l.collcollate, l.collisdeterministic)), '{}'
    from pg_collation l join schemas s on s.oid = l.collnamespace
    where not exists (select from of_extension e where e.classid = 'pg_collation'::regclass and e.objid = l.oid)
    union all
    select 'text search configuration', format('%%I.%%I', s.nspname, g.cfgname), null,
           json_build_object('definition', (select string_agg(format('%%s %%s', m.maptokentype, m.mapdict::regdictionary), ', '
                          order by m.maptokentype, m.mapseqno) from pg_ts_config_map m where m.mapcfg = g.oid)), '{}'
    from pg_ts_config g join schemas s on s.oid = g.cfgnamespace
    where not exists (select from of_extension e where e.classid = 'pg_ts_config'::regclass and e.objid = g.oid)
    union all
    -- The owner goes by that name: whoever runs the migrations owns what they make.
    select 'grant', format('%%s %%s to %%s', kind, name, who), concat(kind, ' ', name),
           json_build_object('privileges', string_agg(privilege, ', ' order by privilege)),
           json_build_object('on', object, 'to', grantee, 'of', concat(kind, ' ', name), 'columns', max(of_columns))
    from (
        select a.*, case when x.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(x.grantee)) end as grantee,
               case x.grantee when 0 then 'public' when a.owner then 'the owner'
                              else quote_ident(pg_get_userbyid(x.grantee)) end as who,
               x.privilege_type || case when x.is_grantable and x.grantee <> a.owner then ' with grant option' else '' end
                   as privilege
        from access a, aclexplode(a.acl) x
    ) g
    where not (kind = 'schema' and who = 'the owner' and name = coalesce(quote_ident(%(history_schema)s), ''))
    group by kind, name, object, who, grantee
    union all
    select 'default privileges',
           concat('of ', who, ' on ', objects, ' in schema ' || quote_ident(nspname), ' to ', grantee),
           case when nspname is not null then 'schema ' || quote_ident(nspname) end,
           json_build_object('privileges', coalesce(array_to_string(granted, ', '), 'nothing')),
           json_build_object('on', objects, 'to', grantee, 'default', concat('alter default privileges for role ', role,
                             ' in schema ' || quote_ident(nspname)), 'usual', array_to_string(usual, ', '))
    from (
        select d.*, quote_ident(pg_get_userbyid(defaclrole)) as role,
               case when pg_get_userbyid(defaclrole) = current_user then 'the owner'
                    else quote_ident(pg_get_userbyid(defaclrole)) end as who,
               case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as grantee,
               case defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions'
                                  when 'T' then 'types' when 'n' then 'schemas' else 'large objects' end as objects
        from (select defaclobjtype, defaclrole, nspname, grantee, granted, usual from default_access) d
    ) d (defaclobjtype, defaclrole, nspname, grantee_id, granted, usual, role, who, grantee, objects)
    where granted is distinct from usual
    union all
    select 'comment', object, concat(kind, ' ', name), json_build_object('text', description),
           json_build_object('make', format('comment on %%s is %%L', object, description))
    from comments
)
select kind, name, parent, json_strip_nulls(parts) as parts, json_strip_nulls(sql) as sql from rows order by 1, 2
