drop view table_sizes;
drop view unused_indexes;
drop extension pg_stat_statements;
