-- Statistics of queries. They are collected only where shared_preload_libraries names the extension.
create extension if not exists pg_stat_statements;
