-- Purpose: every right of some roles and of PUBLIC in this database. Rows of kind, role, object (its parts), privilege.
-- Parameters: %(roles)s: the roles whose rights are all told; %(logins)s: those of which the attributes are told, too.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "Privileges", functions aclexplode and acldefault. The rights of an owner are left out; of
--         PUBLIC those on the database and the one to make objects in schemas are told, no others.
with managed as materialized (
    select oid, rolname::text as role from pg_roles where rolname = any (%(roles)s)
), acls(kind, object, owner, acl) as (
    select 'database', array[datname::text], datdba, coalesce(datacl, acldefault('d', datdba))
    from pg_database where datname = current_database()
    union all
    select 'schema', array[nspname::text], nspowner, coalesce(nspacl, acldefault('n', nspowner))
    from pg_namespace where nspname !~ '^pg_(toast|temp)'
    union all
    select case c.relkind when 'S' then 'sequence' else 'relation' end, array[n.nspname::text, c.relname::text],
           c.relowner, c.relacl
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relacl is not null
    union all
    select 'column', array[n.nspname::text, c.relname::text, a.attname::text], c.relowner, a.attacl
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
    where a.attacl is not null and not a.attisdropped
    union all
    select 'routine', array[oid::regprocedure::text], proowner, proacl from pg_proc where proacl is not null
), granted as (
    select a.kind, coalesce(m.role, 'public') as role, a.object, x.privilege_type, x.is_grantable
    from acls a, aclexplode(a.acl) x left join managed m on m.oid = x.grantee
    where x.grantee <> a.owner
      and (m.oid is not null
           or x.grantee = 0 and (a.kind = 'database' or a.kind = 'schema' and x.privilege_type = 'CREATE'))
    union all
    select 'default', m.role,
           array[pg_get_userbyid(d.defaclrole)::text, coalesce(n.nspname::text, ''),
                 case d.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' when 'f' then 'ROUTINES'
                                      when 'T' then 'TYPES' when 'n' then 'SCHEMAS' else 'LARGE OBJECTS' end],
           x.privilege_type, x.is_grantable
    from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) x
    join managed m on m.oid = x.grantee
    where x.grantee <> d.defaclrole
)
select kind, role, object, privilege_type from granted
union
select kind, role, object, 'GRANT OPTION FOR ' || privilege_type from granted where is_grantable
union
select 'membership', r.rolname, array[g.rolname::text], v.what
from pg_auth_members a join pg_roles r on r.oid = a.member join pg_roles g on g.oid = a.roleid,
     lateral (values ('MEMBER', true), ('ADMIN', a.admin_option)) v(what, has)
where v.has and (a.member in (select oid from managed) or a.roleid in (select oid from managed))
union
select 'attribute', r.rolname, '{}', v.what
from pg_roles r,
     lateral (values ('SUPERUSER', r.rolsuper), ('CREATEDB', r.rolcreatedb), ('CREATEROLE', r.rolcreaterole),
                     ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) v(what, has)
where v.has and (r.rolname = any (%(logins)s) or r.oid in (select oid from managed))
union
select 'attribute', r.rolname, '{}', 'LOGIN' from pg_roles r where r.rolcanlogin and r.oid in (select oid from managed)
union
select 'role', role, '{}', 'EXISTS' from managed
order by 1, 2, 3, 4
