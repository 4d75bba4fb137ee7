-- Slow queries, by the server's own statistics. The extension counts only where shared_preload_libraries names it; the
-- settings of the log (log_min_duration_statement and so on) are the server's, not this database's.

create extension if not exists pg_stat_statements;

create view slow_queries as
select query, calls, total_exec_time, mean_exec_time, max_exec_time, stddev_exec_time, rows
from pg_stat_statements
where mean_exec_time > 1000
  and dbid = (select oid from pg_database where datname = current_database())
order by mean_exec_time desc
limit 50;
comment on view slow_queries is
    'Statements of this database that take more than a second on average; times in milliseconds.';
