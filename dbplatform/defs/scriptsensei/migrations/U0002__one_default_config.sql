drop index concurrently if exists extraction_configs_one_default;
