-- Two default configurations at once were a matter of luck until now. Built while the application works.
create unique index concurrently extraction_configs_one_default on extraction_configs (is_default) where is_default;
