-- Purpose: the objects of some schemas, and these schemas, that belong to none of some roles. Rows of: what it is, as
--          ALTER says it; its name; its owner; what the owner is to keep: GRANTs but for their role.
-- Parameters: %(schemas)s; %(owners)s: the roles that may own them.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "ALTER TABLE", OWNER TO: the owner's rights go with it, and the sequences of its columns.
--         Members of extensions, and what follows its table or type, are left out; public belongs to the database's owner.
with of_extension as materialized (
    select classid, objid from pg_depend where deptype = 'e'
), found(place, what, name, owner, keeps) as (
    select 1, 'SCHEMA', format('%%I', n.nspname), n.nspowner, array[format('USAGE ON SCHEMA %%I', n.nspname)]
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
                      and d.refobjid = c.oid and d.deptype = 'a' order by 1)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = any (%(schemas)s) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
      and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
      and not exists (select from pg_depend d
                      where c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid
                        and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i'))
    union all
    select 6, 'ROUTINE', p.oid::regprocedure::text, p.proowner, array[format('EXECUTE ON ROUTINE %%s', p.oid::regprocedure)]
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any (%(schemas)s)
      and not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
    union all
    select 7, 'TYPE', format('%%I.%%I', n.nspname, t.typname), t.typowner,
           array[format('USAGE ON TYPE %%I.%%I', n.nspname, t.typname)]
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where n.nspname = any (%(schemas)s)
      and (t.typtype in ('e', 'd', 'r')
           or t.typtype = 'c' and exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
      and not exists (select from of_extension e where e.classid = 'pg_type'::regclass and e.objid = t.oid)
    union all
    select 8, 'STATISTICS', format('%%I.%%I', n.nspname, s.stxname), s.stxowner, '{}'
    from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where n.nspname = any (%(schemas)s)
)
select f.what, f.name, r.rolname, case when r.rolsuper then '{}' else f.keeps end
from found f join pg_roles r on r.oid = f.owner
where r.rolname <> all (%(owners)s)
order by f.place, f.name
