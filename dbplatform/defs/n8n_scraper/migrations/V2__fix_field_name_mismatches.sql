-- The models say title, node_id and doc_id; the tables did not. IF NOT EXISTS: some installations were mended by hand.

alter table workflows add column if not exists title varchar(500);
update workflows set title = name where title is null;

alter table workflow_node_contexts add column if not exists node_id varchar(255);
update workflow_node_contexts set node_id = node_name where node_id is null;

alter table workflow_standalone_docs add column if not exists doc_id serial;
