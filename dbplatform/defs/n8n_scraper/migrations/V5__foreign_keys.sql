-- New rows are checked from now on; the old ones in the next version, without stopping writers.

alter table workflow_node_contexts add constraint fk_node_contexts_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade not valid;
alter table workflow_standalone_docs add constraint fk_standalone_docs_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade not valid;
alter table workflow_extraction_snapshots add constraint fk_extraction_snapshots_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade not valid;
