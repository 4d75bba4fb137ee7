-- Purpose: every right that somebody has been granted in this database, those that later objects will bring, and whose
--          each object is. One row for each right: kind, role, object, privilege; that of an owner is 'owner'.
-- Parameters: %(leave_out)s: the platform's own schema; %(most)s: so many rows at most.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "Privileges", functions aclexplode and acldefault. What owners may do is left out, and
--         what everybody may do by default with routines, languages and types; so are members of extensions, partitions
--         whose owner and rights are those of their table, and the owners of columns' sequences, which are the tables'.
with schemas as materialized (
    select oid, nspname, nspowner, nspacl from pg_namespace
    where nspname !~ '^pg_' and nspname not in ('information_schema', %(leave_out)s)
), of_extension as materialized (
    select classid, objid from pg_depend where deptype = 'e'
), relations as materialized (
    select c.oid, c.relkind, c.relowner, c.relacl, format('%%I.%%I', s.nspname, c.relname) as name,
           not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and c.relkind = 'S'
                         and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')) as is_owned
    from pg_class c join schemas s on s.oid = c.relnamespace
    left join pg_inherits i on i.inhrelid = c.oid and c.relispartition
    left join pg_class t on t.oid = i.inhparent
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
      and (t.oid is null or (c.relowner, c.relacl::text) is distinct from (t.relowner, t.relacl::text))
      and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
), acls(kind, object, owner, is_owned, acl) as (
    select 'database', format('%%I', datname), datdba, true, coalesce(datacl, acldefault('d', datdba))
    from pg_database where datname = current_database()
    union all
    select 'schema', format('%%I', nspname), nspowner, true, nspacl from schemas
    union all
    select case relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view'
                        when 'f' then 'foreign table' else 'table' end, name, relowner, is_owned, relacl
    from relations
    union all
    select 'column', format('%%s.%%I', r.name, a.attname), r.relowner, false, a.attacl
    from relations r join pg_attribute a on a.attrelid = r.oid
    where a.attacl is not null and not a.attisdropped
    union all
    select 'routine', format('%%I.%%I(%%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner, true,
           p.proacl
    from pg_proc p join schemas s on s.oid = p.pronamespace
    where not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
    union all
    select case d.defaclobjtype when 'r' then 'later tables' when 'S' then 'later sequences' when 'f' then 'later routines'
                                when 'T' then 'later types' when 'n' then 'later schemas' else 'later large objects' end,
           format('%%s, made by %%I', coalesce('in ' || quote_ident(n.nspname), 'in any schema'), pg_get_userbyid(d.defaclrole)),
           d.defaclrole, false, d.defaclacl
    from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
)
select a.kind, case when x.grantee = 0 then 'PUBLIC' else pg_get_userbyid(x.grantee)::text end as role, a.object,
       x.privilege_type || case when x.is_grantable then ' WITH GRANT OPTION' else '' end as privilege
from acls a, aclexplode(a.acl) x
where x.grantee <> a.owner
union all
select kind, pg_get_userbyid(owner)::text, object, 'owner' from acls where is_owned
order by 2, 1, 3, 4
limit %(most)s
