-- A constraint cannot be made unvalidated again: it is made anew, as the version before has it.
alter table workflow_node_contexts drop constraint fk_node_contexts_workflow;
alter table workflow_node_contexts add constraint fk_node_contexts_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade not valid;
alter table workflow_standalone_docs drop constraint fk_standalone_docs_workflow;
alter table workflow_standalone_docs add constraint fk_standalone_docs_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade not valid;
alter table workflow_extraction_snapshots drop constraint fk_extraction_snapshots_workflow;
alter table workflow_extraction_snapshots add constraint fk_extraction_snapshots_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade not valid;
