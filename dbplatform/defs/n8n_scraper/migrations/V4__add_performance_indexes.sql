-- Built while the application works: each statement runs by itself, outside a transaction.

-- Which workflows still need a layer.
create index concurrently idx_workflows_extraction_status
    on workflows (unified_extraction_success, layer2_scraped, layer3_scraped);

-- Workflows over time.
create index concurrently idx_workflows_created_at
    on workflows (created_at);

-- The nodes of a workflow.
create index concurrently idx_node_contexts_workflow_id
    on workflow_node_contexts (workflow_id);

-- The texts of a workflow.
create index concurrently idx_standalone_docs_workflow_id
    on workflow_standalone_docs (workflow_id);

-- The attempts on a workflow, newest first.
create index concurrently idx_extraction_snapshots_workflow_id
    on workflow_extraction_snapshots (workflow_id, created_at desc);
