drop index concurrently if exists idx_extraction_snapshots_workflow_id;
drop index concurrently if exists idx_standalone_docs_workflow_id;
drop index concurrently if exists idx_node_contexts_workflow_id;
drop index concurrently if exists idx_workflows_created_at;
drop index concurrently if exists idx_workflows_extraction_status;
