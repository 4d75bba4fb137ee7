-- Back to a plain table, with the rows of all partitions, also of those that were made since.

lock table workflows, workflow_node_contexts, workflow_standalone_docs, workflow_extraction_snapshots
    in access exclusive mode;

drop view workflow_extraction_summary;
alter table workflow_node_contexts drop constraint fk_node_contexts_workflow;
alter table workflow_standalone_docs drop constraint fk_standalone_docs_workflow;
alter table workflow_extraction_snapshots drop constraint fk_extraction_snapshots_workflow;

alter table workflows rename to workflows_partitioned;
alter table workflows_partitioned rename constraint workflows_pkey to workflows_partitioned_pkey;
alter index idx_workflows_extraction_status rename to idx_workflows_partitioned_extraction_status;
alter index idx_workflows_created_at rename to idx_workflows_partitioned_created_at;
alter index idx_workflows_metadata_gin rename to idx_workflows_partitioned_metadata_gin;

create table workflows (
    like workflows_partitioned including defaults including constraints including comments,
    primary key (workflow_id)
);
comment on table workflows is 'Published n8n workflows, as the scraper found them.';
insert into workflows select * from workflows_partitioned;
create index idx_workflows_extraction_status
    on workflows (unified_extraction_success, layer2_scraped, layer3_scraped);
create index idx_workflows_created_at on workflows (created_at);
create index idx_workflows_metadata_gin on workflows using gin (metadata);
drop table workflows_partitioned;

alter table workflow_node_contexts drop column workflow_created_at;
alter table workflow_node_contexts add constraint fk_node_contexts_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade;
alter table workflow_standalone_docs drop column workflow_created_at;
alter table workflow_standalone_docs add constraint fk_standalone_docs_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade;
alter table workflow_extraction_snapshots drop column workflow_created_at;
alter table workflow_extraction_snapshots add constraint fk_extraction_snapshots_workflow
    foreign key (workflow_id) references workflows (workflow_id) on delete cascade;

create view workflow_extraction_summary as
select w.workflow_id, w.title, w.unified_extraction_success,
       (select count(*) from workflow_node_contexts c where c.workflow_id = w.workflow_id) as node_context_count,
       (select count(*) from workflow_standalone_docs d where d.workflow_id = w.workflow_id) as standalone_doc_count
from workflows w;
