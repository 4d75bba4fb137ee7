drop view slow_queries;
drop extension pg_stat_statements;
