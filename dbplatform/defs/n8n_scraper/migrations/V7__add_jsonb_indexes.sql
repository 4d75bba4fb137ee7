-- Built while the application works: each statement runs by itself, outside a transaction.

-- Search in the metadata.
create index concurrently idx_workflows_metadata_gin
    on workflows using gin (metadata);

-- Search by the place of a node.
create index concurrently idx_node_contexts_position_gin
    on workflow_node_contexts using gin (node_position);
