alter table workflow_node_contexts alter column node_id drop not null;
alter table workflow_node_contexts add column node_name varchar(255);
update workflow_node_contexts set node_name = node_id;
alter table workflow_node_contexts alter column node_name set not null;
alter table workflows add column name varchar(500);
update workflows set name = title;
