create view database_performance as
select relname as tablename, n_live_tup as live_tuples, n_dead_tup as dead_tuples, last_vacuum, last_autovacuum
from pg_stat_user_tables
where schemaname = 'public';
comment on view database_performance is 'How many rows live and dead each table has, and when it was last cleaned.';

create view data_quality_metrics as
select 'Workflows' as table_name, count(*) as total_records,
       count(*) filter (where title is null) as missing_titles,
       count(*) filter (where url is null) as missing_urls
from workflows;
comment on view data_quality_metrics is 'What is missing where it should not be.';
