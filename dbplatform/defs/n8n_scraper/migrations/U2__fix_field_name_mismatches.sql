alter table workflow_standalone_docs drop column doc_id;
alter table workflow_node_contexts drop column node_id;
alter table workflows drop column title;
