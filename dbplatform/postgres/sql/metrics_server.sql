-- Purpose: what the other statements of a collection must know beforehand (rights, settings, extensions), and the
--          counters of the database and of the whole server. One row. Settings: those that are not the default, but for
--          what the session, its user or the start of the server sets, and what may hold a secret.
-- Parameters: {checkpoints}: the four columns of checkpoints, which moved to another view in version 17.
-- Lock: none beside the catalog's.
-- First version: 14.
-- Source: PostgreSQL manual, "The Cumulative Statistics System", "System Information Functions".
select pg_is_in_recovery() as in_recovery, quote_ident(current_user) as user_name,
       pg_has_role('pg_read_all_stats', 'usage') as reads_all_stats,
       has_function_privilege('pg_ls_waldir()', 'execute')
           and has_function_privilege('pg_ls_archive_statusdir()', 'execute') as lists_wal,
       current_setting('track_counts')::bool as track_counts,
       current_setting('archive_mode') as archive_mode,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) as usable_connections,
       (select array[n.nspname::text, e.extversion] from pg_extension e join pg_namespace n on n.oid = e.extnamespace
        where e.extname = 'pg_stat_statements') as statements,
       (select json_object_agg(s.name, current_setting(s.name)) from pg_settings s
        where s.source in ('environment variable', 'configuration file', 'command line', 'global', 'database')
          and s.name not in ('primary_conninfo', 'archive_command', 'restore_command', 'archive_cleanup_command',
                             'recovery_end_command', 'ssl_passphrase_command', 'port', 'unix_socket_directories',
                             'data_directory', 'external_pid_file')
          and not (s.name like '%.%' and s.vartype = 'string') or s.name = 'server_version') as settings,
       extract(epoch from pg_postmaster_start_time()) as postmaster_start,
       d.xact_commit, d.xact_rollback, d.blks_hit, d.blks_read, d.deadlocks, d.temp_files, d.temp_bytes, d.conflicts,
       coalesce(extract(epoch from d.stats_reset), 0) as database_stats_reset,
       oldest_xid.datname as xid_database, oldest_xid.age as xid_age,
       oldest_multixact.datname as multixact_database, oldest_multixact.age as multixact_age,
       pg_wal_lsn_diff(case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                            else pg_current_wal_lsn() end, '0/0') as wal_position,
       {checkpoints},
       a.archived_count, a.failed_count, coalesce(extract(epoch from a.stats_reset), 0) as archiver_stats_reset,
       extract(epoch from clock_timestamp() - a.last_failed_time) as archiver_failure_age, a.last_failed_wal
from pg_stat_database d,
     (select datname, age(datfrozenxid) as age from pg_database order by 2 desc, 1 limit 1) oldest_xid,
     (select datname, mxid_age(datminmxid) as age from pg_database order by 2 desc, 1 limit 1) oldest_multixact,
     {checkpointer} c, pg_stat_archiver a
where d.datname = current_database()
