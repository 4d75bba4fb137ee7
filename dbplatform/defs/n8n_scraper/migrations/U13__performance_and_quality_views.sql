drop view data_quality_metrics;
drop view database_performance;
