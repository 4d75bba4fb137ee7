alter table invoices reset (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor);
alter table invoice_extractions reset (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor);
alter table validations reset (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor);
alter table exceptions reset (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor);
alter table staged_exports reset (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor);
