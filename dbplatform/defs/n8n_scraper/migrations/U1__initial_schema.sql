drop table workflow_extraction_snapshots;
drop table workflow_standalone_docs;
drop table workflow_node_contexts;
drop table workflows;
