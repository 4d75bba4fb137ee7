drop view processing_queue;
drop trigger extraction_configs_touch on extraction_configs;
drop function touch_updated_at();
