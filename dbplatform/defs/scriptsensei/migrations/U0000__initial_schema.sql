-- Undoing the first version loses everything: take a backup first.
drop table extraction_results;
drop table prescriptions;
drop table extraction_configs;
