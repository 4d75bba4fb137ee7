-- Purpose: what the catalog that everybody may read says of roles, rights, row-level security, functions and extensions.
--          Rows of rule, object, evidence, mend.
-- Parameters: %(leave_out)s: the platform's own schema.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "Privileges", "Row Security Policies", "Writing SECURITY DEFINER Functions Safely",
--         "Predefined Roles". Members of extensions are left out: their rights are those of the extension's script.
with schemas as materialized (
    select oid, nspname, nspowner, nspacl from pg_namespace
    where nspname !~ '^pg_' and nspname not in ('information_schema', %(leave_out)s)
), of_extension as materialized (
    select classid, objid from pg_depend where deptype = 'e'
), relations as materialized (
    select c.oid, c.relkind, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.reloptions,
           s.oid as schema_id, s.nspname, c.relname, format('%%I.%%I', s.nspname, c.relname) as name
    from pg_class c join schemas s on s.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
      and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
), routines as materialized (
    select p.oid, p.proowner, p.proconfig, p.prosqlbody, p.prorettype, s.nspname,
           coalesce(p.proacl, acldefault('f', p.proowner)) as acl,
           format('%%I.%%I(%%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name
    from pg_proc p join schemas s on s.oid = p.pronamespace
    where p.prosecdef
      and not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
), logins as materialized (
    select oid, rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication, rolvaliduntil,
           format('%%I', rolname) as name, case when rolname = current_user then '; the platform works as it' else '' end as own
    from pg_roles where rolcanlogin and rolname !~ '^pg_'
), protected as materialized (
    select * from relations where relrowsecurity and not relispartition
), unprotected as materialized (
    select * from relations where relkind in ('r', 'p') and not relrowsecurity and not relispartition
), findings(rule, object, evidence, mend) as (
    select case when oid = 10 then 'bootstrap_superuser' else 'login_superuser' end, name,
           'it can log in and passes every check of rights' || own,
           case when oid <> 10 then format('ALTER ROLE %%s NOSUPERUSER;', name) end
    from logins where rolsuper
    union all
    select 'login_bypassrls', name, 'it can log in and sees every row, whatever the policies say' || own,
           format('ALTER ROLE %%s NOBYPASSRLS;', name)
    from logins where rolbypassrls and not rolsuper
    union all
    select 'login_createrole', name,
           case when current_setting('server_version_num')::int < 160000
                then 'it can log in and grant itself any role but a superuser' else 'it can log in and make roles' end || own,
           format('ALTER ROLE %%s NOCREATEROLE;', name)
    from logins where rolcreaterole and not rolsuper
    union all
    select 'login_server_access', l.name,
           format('it is a member of %%s, and so reaches files or programs of the server', g.rolname) || l.own,
           format('REVOKE %%I FROM %%s;', g.rolname, l.name)
    from logins l
    join pg_roles g on g.rolname in ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
    where not l.rolsuper and pg_has_role(l.oid, g.oid, 'member')
    union all
    select 'password_without_expiry', name, 'VALID UNTIL is not set',
           format('ALTER ROLE %%s VALID UNTIL ''...''; -- and a way to change it before', name)
    from logins where rolvaliduntil is null or rolvaliduntil = 'infinity'
    union all
    select 'public_database', format('%%I', d.datname),
           format('every role of the server may %%s', string_agg(case a.privilege_type when 'CREATE' then 'create schemas'
                  when 'TEMPORARY' then 'make temporary tables' else 'connect' end, ', ' order by a.privilege_type)),
           format('REVOKE %%s ON DATABASE %%I FROM PUBLIC; -- then GRANT CONNECT to the roles that need it',
                  string_agg(a.privilege_type, ', ' order by a.privilege_type), d.datname)
    from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    where d.datname = current_database() and a.grantee = 0 group by d.datname
    union all
    select 'public_create', format('%%I', s.nspname), 'every role may make objects in this schema, and so take over names',
           format('REVOKE CREATE ON SCHEMA %%I FROM PUBLIC;', s.nspname)
    from schemas s, aclexplode(coalesce(s.nspacl, acldefault('n', s.nspowner))) a
    where a.grantee = 0 and a.privilege_type = 'CREATE'
    union all
    select case when bool_or(a.privilege_type not in ('SELECT', 'USAGE', 'REFERENCES')) then 'public_write' else 'public_read' end,
           r.name, format('PUBLIC has %%s', string_agg(distinct a.privilege_type, ', ')),
           format('REVOKE ALL ON %%s %%s FROM PUBLIC;', case r.relkind when 'S' then 'SEQUENCE' else 'TABLE' end, r.name)
    from relations r,
         lateral (select * from aclexplode(r.relacl)
                  union all
                  select x.* from pg_attribute t, aclexplode(t.attacl) x where t.attrelid = r.oid and not t.attisdropped) a
    where a.grantee = 0 group by r.name, r.relkind
    union all
    select 'public_by_default',
           coalesce((select format('%%I', s.nspname) from schemas s where s.oid = d.defaclnamespace), 'every schema'),
           format('what %%s makes there is open to PUBLIC (%%s)', pg_get_userbyid(d.defaclrole),
                  string_agg(a.privilege_type, ', ')),
           format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I %%s REVOKE ALL ON %%s FROM PUBLIC;', pg_get_userbyid(d.defaclrole),
                  coalesce((select format('IN SCHEMA %%I', s.nspname) from schemas s where s.oid = d.defaclnamespace), ''),
                  case d.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' else 'SCHEMAS' end)
    from pg_default_acl d, aclexplode(d.defaclacl) a
    where a.grantee = 0 and d.defaclobjtype in ('r', 'S', 'n') group by d.oid, d.defaclnamespace, d.defaclrole, d.defaclobjtype
    union all
    select 'security_definer_search_path', p.name,
           format('it runs as %%s and looks names up by the search_path of whoever calls it', pg_get_userbyid(p.proowner)),
           format('ALTER ROUTINE %%s SET search_path = %%I, pg_temp;', p.name, p.nspname)
    from routines p
    where not exists (select from unnest(p.proconfig) c where c like 'search_path=%%') and p.prosqlbody is null
    union all
    select 'public_security_definer', p.name, format('PUBLIC may run it as %%s', pg_get_userbyid(p.proowner)),
           format('REVOKE EXECUTE ON ROUTINE %%s FROM PUBLIC;', p.name)
    from routines p
    where p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
      and exists (select from aclexplode(p.acl) a where a.grantee = 0)
    union all
    select 'policy_without_row_security', r.name,
           format('it has policies (%%s) and row-level security is off', string_agg(p.polname, ', ' order by p.polname)),
           format('ALTER TABLE %%s ENABLE ROW LEVEL SECURITY;', r.name)
    from relations r join pg_policy p on p.polrelid = r.oid where not r.relrowsecurity group by r.name
    union all
    select distinct 'unprotected_neighbour', u.name,
           format('it refers to %%s, which row-level security protects, and has none itself', r.name),
           format('ALTER TABLE %%s ENABLE ROW LEVEL SECURITY; -- with a policy', u.name)
    from unprotected u join pg_constraint k on k.conrelid = u.oid and k.contype = 'f' join protected r on r.oid = k.confrelid
    union all
    select 'unprotected_in_schema', format('%%I', u.nspname),
           format('%%s of its tables have row-level security, %%s have none: %%s%%s',
                  (select count(*) from protected p where p.schema_id = u.schema_id), count(*),
                  array_to_string((array_agg(u.relname order by u.relname))[1:10], ', '),
                  case when count(*) > 10 then ', ...' else '' end),
           null
    from unprotected u where exists (select from protected p where p.schema_id = u.schema_id) group by u.schema_id, u.nspname
    union all
    select 'row_security_not_forced', r.name, format('its owner %%s can log in and sees every row', l.name),
           format('ALTER TABLE %%s FORCE ROW LEVEL SECURITY; -- if the application works as its owner', r.name)
    from protected r join logins l on l.oid = r.relowner where not r.relforcerowsecurity and not l.rolsuper and not l.rolbypassrls
    union all
    select distinct 'view_around_row_security', v.name,
           format('it shows %%s by the rights of its owner %%s, past the policies', r.name, pg_get_userbyid(v.relowner)),
           case when current_setting('server_version_num')::int >= 150000 and v.relkind = 'v'
                then format('ALTER VIEW %%s SET (security_invoker = true);', v.name) end
    from relations v
    join pg_rewrite w on w.ev_class = v.oid
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass
    join protected r on r.oid = d.refobjid
    where v.relkind in ('v', 'm')
      and not exists (select from unnest(v.reloptions) o where o in ('security_invoker=true', 'security_invoker=on'))
    union all
    select case when e.extname in ('adminpack', 'dblink', 'file_fdw', 'pageinspect', 'pg_surgery', 'pg_visibility')
                then 'dangerous_extension' else 'untrusted_extension' end, format('%%I', e.extname),
           format('version %%s in the schema %%I; only a superuser can install it', e.extversion, s.nspname), null
    from pg_extension e join pg_namespace s on s.oid = e.extnamespace
    join pg_available_extension_versions v on v.name = e.extname and v.version = e.extversion
    where not v.trusted
    union all
    select 'untrusted_language', format('%%I', l.lanname),
           format('its functions do on the server what its process may; there are %%s', (
               select count(*) from pg_proc p where p.prolang = l.oid)),
           format('DROP LANGUAGE %%I; -- once no function needs it', l.lanname)
    from pg_language l where l.lanispl and not l.lanpltrusted
    union all
    select 'password_encryption', 'password_encryption', format('new passwords are kept as %%s', setting),
           'ALTER SYSTEM SET password_encryption = ''scram-sha-256''; SELECT pg_reload_conf();'
    from pg_settings where name = 'password_encryption' and setting <> 'scram-sha-256'
    union all
    select 'connections_not_logged', 'log_connections', 'nobody can tell afterwards who was connected',
           'ALTER SYSTEM SET log_connections = on; SELECT pg_reload_conf();'
    from pg_settings where name = 'log_connections' and setting in ('off', '')
)
select rule, object, evidence, mend from findings order by 1, 2
