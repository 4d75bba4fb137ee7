-- Orphans are not deleted in silence: where there are any, this fails and names the constraint.
alter table workflow_node_contexts validate constraint fk_node_contexts_workflow;
alter table workflow_standalone_docs validate constraint fk_standalone_docs_workflow;
alter table workflow_extraction_snapshots validate constraint fk_extraction_snapshots_workflow;
