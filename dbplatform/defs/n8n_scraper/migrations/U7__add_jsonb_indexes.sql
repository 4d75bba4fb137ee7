drop index concurrently if exists idx_node_contexts_position_gin;
drop index concurrently if exists idx_workflows_metadata_gin;
