-- Purpose: sessions of the server and of this database: how many in which state, the oldest of each kind, and who waits
--          for whom. One row. The sessions that measure (application_name 'dbplatform metrics') do not count.
-- Parameters: none.
-- Lock: none; the server's table of locks is read once.
-- First version: 14 (pg_locks.waitstart).
-- Source: PostgreSQL manual, pg_stat_activity, pg_locks, pg_prepared_xacts.
with client as (
    select pid, datname = current_database() as here, state, state_change, xact_start, query_start, wait_event_type,
           format('backend %s (%s)', pid, coalesce(nullif(application_name, ''), 'no application name')) as who,
           case when wait_event_type = 'Lock' then pg_blocking_pids(pid) else '{}' end as blockers
    from pg_stat_activity
    where backend_type = 'client backend' and application_name <> 'dbplatform metrics'
), lock as (
    select pid, granted, mode, relation, waitstart from pg_locks
    where database = (select oid from pg_database where datname = current_database())
       or (database is null and pid in (select pid from client where here))
), open as (
    select clock_timestamp() - xact_start as age, who from client where here and xact_start is not null
    union all
    -- A prepared transaction is open as well, and has no backend.
    select clock_timestamp() - prepared, 'prepared transaction ' || quote_literal(gid)
    from pg_prepared_xacts where database = current_database()
), waiting as (
    select c.pid, c.blockers, c.who, extract(epoch from clock_timestamp() - coalesce(l.waitstart, c.query_start)) as age,
           l.mode, l.relation::regclass::text as relation
    from client c left join lock l on l.pid = c.pid and not l.granted
    where c.here and cardinality(c.blockers) > 0
)
select count(*) as clients,
       count(*) filter (where here and state = 'active') as active,
       count(*) filter (where here and state = 'idle') as idle,
       count(*) filter (where here and state like 'idle in transaction%') as idle_in_transaction,
       count(*) filter (where here and state = 'active' and wait_event_type <> 'Client') as waiting,
       (select array[extract(epoch from age)::text, who] from open order by age desc limit 1) as longest_transaction,
       (select array[extract(epoch from clock_timestamp() - state_change)::text, who] from client
        where here and state like 'idle in transaction%' order by state_change limit 1) as longest_idle,
       (select array[extract(epoch from clock_timestamp() - query_start)::text, who] from client
        where here and state = 'active' order by query_start limit 1) as longest_statement,
       (select count(*) from waiting) as blocked,
       (select mode() within group (order by blockers[1]) from waiting) as blocker,
       (select array[age::text, who] from waiting order by age desc limit 1) as longest_wait,
       (select count(*) from lock where pid is null or pid in (select pid from client where here)) as locks,
       (select jsonb_agg(w) from (
           select pid, blockers as blocked_by, round(age::numeric, 3) as seconds, mode, relation
           from waiting order by age desc limit 10) w) as blocked_list
from client
