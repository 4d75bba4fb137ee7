drop table device_fingerprints;
drop table trial_usage;
drop table trial_tokens;
drop table schema_migrations;
