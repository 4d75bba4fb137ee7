-- Purpose: the objects of some schemas, and these schemas, that belong to none of some roles. Rows of: what it is, as
--          ALTER says it; its name; its owner; what the owner is to keep: GRANTs but for their role; whether it runs
--          code with its owner's rights; whether the owner is trusted with those of another; whether policies bind the
--          owner once it is another's; the routines of untrusted owners that whoever writes there runs.
-- Parameters: %(schemas)s; %(owners)s: the roles that may own them; %(trusted)s: roles that are trusted beside
--             superusers and the owner of the database.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "ALTER TABLE", OWNER TO: the owner's rights go with it, and the sequences of its columns.
--         Members of extensions, and what follows its table or type, are left out; public belongs to the database's owner.
--         "Rules and Privileges": what a view or a rule refers to is read with the rights of the owner. "CREATE FUNCTION":
--         SECURITY DEFINER. "ANALYZE", "REINDEX", "REFRESH MATERIALIZED VIEW": expressions of indexes and statistics, and
--         the query, run as the owner; what is built in, or part of an extension, runs nothing that a user has written.
with of_extension as materialized (
    select classid, objid from pg_depend where deptype = 'e'
), trusted as materialized (
    select oid from pg_roles where rolsuper or rolname = any (%(owners)s) or rolname = any (%(trusted)s)
    union select datdba from pg_database where datname = current_database()
), calls(relation, as_owner, routine) as materialized (
    select coalesce(i.indrelid, s.stxrelid, t.tgrelid, nullif(k.conrelid, 0), a.adrelid),
           coalesce(i.indrelid, s.stxrelid) is not null,
           coalesce(case d.refclassid when 'pg_proc'::regclass then d.refobjid end, o.oprcode::oid)
    from pg_depend d
    left join pg_index i on d.classid = 'pg_class'::regclass and i.indexrelid = d.objid
    left join pg_statistic_ext s on d.classid = 'pg_statistic_ext'::regclass and s.oid = d.objid
    left join pg_trigger t on d.classid = 'pg_trigger'::regclass and t.oid = d.objid
    left join pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
    left join pg_attrdef a on d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
    left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
    left join pg_type y on d.refclassid = 'pg_type'::regclass and y.oid = d.refobjid
    where (d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass) or y.typtype = 'd')
      and not exists (select from of_extension e where e.classid = d.refclassid and e.objid = d.refobjid)
), found(place, what, name, owner, keeps, as_owner, relation) as (
    select 1, 'SCHEMA', format('%%I', n.nspname), n.nspowner, array[format('USAGE ON SCHEMA %%I', n.nspname)], false,
           0::oid
    from pg_namespace n
    where n.nspname = any (%(schemas)s) and n.nspname <> 'public'
      and not exists (select from of_extension e where e.classid = 'pg_namespace'::regclass and e.objid = n.oid)
    union all
    select case c.relkind when 'S' then 2 when 'p' then 3 when 'r' then 4 else 5 end,
           case c.relkind when 'v' then 'VIEW' when 'm' then 'MATERIALIZED VIEW' when 'S' then 'SEQUENCE'
                          when 'f' then 'FOREIGN TABLE' else 'TABLE' end,
           format('%%I.%%I', n.nspname, c.relname), c.relowner,
           array[format(case c.relkind when 'S' then 'USAGE, SELECT ON SEQUENCE %%I.%%I'
                                       when 'm' then 'SELECT ON TABLE %%I.%%I'
                                       else 'SELECT, INSERT, UPDATE, DELETE ON TABLE %%I.%%I' end, n.nspname, c.relname)]
           || array(select format('USAGE, SELECT ON SEQUENCE %%I.%%I', n.nspname, s.relname)
                    from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
                    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                      and d.refobjid = c.oid and d.deptype = 'a' order by 1),
           c.relkind = 'm'
           or c.relkind = 'v' and not exists (select from pg_options_to_table(c.reloptions) o
                                              where case o.option_name when 'security_invoker' then o.option_value::boolean end)
           or exists (select from pg_rewrite r where r.ev_class = c.oid and r.ev_type <> '1')
           or exists (select from calls l where l.relation = c.oid and l.as_owner),
           c.oid
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = any (%(schemas)s) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
      and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
      and not exists (select from pg_depend d
                      where c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid
                        and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i'))
    union all
    select 6, 'ROUTINE', p.oid::regprocedure::text, p.proowner, array[format('EXECUTE ON ROUTINE %%s', p.oid::regprocedure)],
           p.prosecdef, 0::oid
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any (%(schemas)s)
      and not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
    union all
    select 7, 'TYPE', format('%%I.%%I', n.nspname, t.typname), t.typowner,
           array[format('USAGE ON TYPE %%I.%%I', n.nspname, t.typname)], false, 0::oid
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where n.nspname = any (%(schemas)s)
      and (t.typtype in ('e', 'd', 'r')
           or t.typtype = 'c' and exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
      and not exists (select from of_extension e where e.classid = 'pg_type'::regclass and e.objid = t.oid)
    union all
    select 8, 'STATISTICS', format('%%I.%%I', n.nspname, s.stxname), s.stxowner, '{}', false, 0::oid
    from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where n.nspname = any (%(schemas)s)
)
select f.what, f.name, r.rolname, case when r.rolsuper then '{}' else f.keeps end, f.as_owner,
       f.owner in (select oid from trusted),
       exists (select from pg_class c where c.oid = f.relation and c.relrowsecurity and not c.relforcerowsecurity)
       and not r.rolsuper and not r.rolbypassrls,
       array(select distinct l.routine::regprocedure::text from calls l join pg_proc p on p.oid = l.routine
             where l.relation = f.relation and not l.as_owner and p.proowner not in (select oid from trusted) order by 1)
from found f join pg_roles r on r.oid = f.owner
where r.rolname <> all (%(owners)s)
order by f.place, f.name
