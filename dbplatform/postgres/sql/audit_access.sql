-- Purpose: who can log in, and the roles that others are members of or that own tables: what each is, how much of the
--          database it reaches, and how many sessions it has there now. One row a role.
-- Parameters: %(leave_out)s: the platform's own schema; %(most)s: so many rows at most.
-- Lock: ACCESS SHARE on the catalog.
-- First version: 14.
-- Source: PostgreSQL manual, "Access Privilege Inquiry Functions". Rights by membership and by PUBLIC are counted.
with tables as materialized (
    select c.oid, c.relowner, n.oid as schema_id
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition and c.relpersistence <> 't'
      and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', %(leave_out)s)
)
select r.rolname as role, r.rolcanlogin as login, r.rolsuper as superuser, r.rolbypassrls as bypassrls, r.rolcreaterole as createrole,
       r.rolcreatedb as createdb, r.rolreplication as replication, nullif(r.rolvaliduntil, 'infinity') as valid_until,
       has_database_privilege(r.oid, current_database(), 'CONNECT') as connects,
       array(select distinct g.rolname from pg_auth_members m join pg_roles g on g.oid = m.roleid
             where m.member = r.oid order by 1)::text[] as member_of,
       array(select distinct g.rolname from pg_auth_members m join pg_roles g on g.oid = m.member
             where m.roleid = r.oid order by 1)::text[] as members,
       array(select distinct g.rolname from pg_auth_members m join pg_roles g on g.oid = m.roleid
             where m.member = r.oid and m.admin_option order by 1)::text[] as admin_of,
       array(select n.nspname from pg_namespace n
             where n.oid in (select schema_id from tables) and has_schema_privilege(r.oid, n.oid, 'CREATE')
             order by 1)::text[] as creates_in,
       t.tables, t.reads, t.writes, t.owns,
       (select count(*) from pg_stat_activity a
        where a.usesysid = r.oid and a.datname = current_database() and a.pid <> pg_backend_pid()) as sessions
from pg_roles r, lateral (
    select count(*) as tables,
           count(*) filter (where has_schema_privilege(r.oid, schema_id, 'USAGE')
                              and has_any_column_privilege(r.oid, oid, 'SELECT')) as reads,
           count(*) filter (where has_schema_privilege(r.oid, schema_id, 'USAGE')
                              and (has_table_privilege(r.oid, oid, 'DELETE, TRUNCATE')
                                   or has_any_column_privilege(r.oid, oid, 'INSERT, UPDATE'))) as writes,
           count(*) filter (where relowner = r.oid) as owns
    from tables) t
where (r.rolcanlogin or t.owns > 0 or exists (select from pg_auth_members m where m.roleid = r.oid)) and r.rolname !~ '^pg_'
order by r.rolcanlogin desc, r.rolsuper desc, t.writes desc, r.rolname
limit %(most)s
