-- workflows becomes a table partitioned by year. A plain table cannot get partitions, so its rows are moved into a new
-- one, in this transaction: writers wait meanwhile, which is a matter of seconds below a million rows.
--
-- The key of a partitioned table holds its partition column: what refers to a workflow now names its created_at, too,
-- which the source never changes. That a workflow_id is there once is watched by a quality check.
--
-- dbplatform:allow drop table

lock table workflows, workflow_node_contexts, workflow_standalone_docs, workflow_extraction_snapshots
    in access exclusive mode;

drop view workflow_extraction_summary;
alter table workflow_node_contexts drop constraint fk_node_contexts_workflow;
alter table workflow_standalone_docs drop constraint fk_standalone_docs_workflow;
alter table workflow_extraction_snapshots drop constraint fk_extraction_snapshots_workflow;

alter table workflows rename to workflows_unpartitioned;
alter table workflows_unpartitioned rename constraint workflows_pkey to workflows_unpartitioned_pkey;
alter index idx_workflows_extraction_status rename to idx_workflows_unpartitioned_extraction_status;
alter index idx_workflows_created_at rename to idx_workflows_unpartitioned_created_at;
alter index idx_workflows_metadata_gin rename to idx_workflows_unpartitioned_metadata_gin;

create table workflows (
    like workflows_unpartitioned including defaults including constraints including comments,
    primary key (workflow_id, created_at)
) partition by range (created_at);
comment on table workflows is
    'Published n8n workflows, as the scraper found them; a partition per year of publication.';

create table workflows_before_2024 partition of workflows for values from (minvalue) to ('2024-01-01 00:00+00');
create table workflows_2024 partition of workflows for values from ('2024-01-01 00:00+00') to ('2025-01-01 00:00+00');
create table workflows_2025 partition of workflows for values from ('2025-01-01 00:00+00') to ('2026-01-01 00:00+00');

-- Later years, where this runs late.
do $$
declare
    year integer;
begin
    for year in select distinct extract(year from created_at at time zone 'UTC') from workflows_unpartitioned
                where created_at >= '2026-01-01 00:00+00'
    loop
        execute format('create table workflows_%s partition of workflows for values from (%L) to (%L)',
                       year, format('%s-01-01 00:00+00', year), format('%s-01-01 00:00+00', year + 1));
    end loop;
end
$$;

insert into workflows (workflow_id, url, author, categories, views, metadata, workflow_json, layer2_scraped,
                       layer3_scraped, unified_extraction_success, created_at, updated_at, title)
select workflow_id, url, author, categories, views, metadata, workflow_json, layer2_scraped,
       layer3_scraped, unified_extraction_success, created_at, updated_at, title
from workflows_unpartitioned;

create index idx_workflows_extraction_status
    on workflows (unified_extraction_success, layer2_scraped, layer3_scraped);
create index idx_workflows_created_at on workflows (created_at);
create index idx_workflows_metadata_gin on workflows using gin (metadata);

alter table workflow_node_contexts add column workflow_created_at timestamptz;
update workflow_node_contexts c set workflow_created_at = w.created_at
from workflows w where w.workflow_id = c.workflow_id;
alter table workflow_node_contexts alter column workflow_created_at set not null;
alter table workflow_node_contexts add constraint fk_node_contexts_workflow
    foreign key (workflow_id, workflow_created_at) references workflows on delete cascade;

alter table workflow_standalone_docs add column workflow_created_at timestamptz;
update workflow_standalone_docs c set workflow_created_at = w.created_at
from workflows w where w.workflow_id = c.workflow_id;
alter table workflow_standalone_docs alter column workflow_created_at set not null;
alter table workflow_standalone_docs add constraint fk_standalone_docs_workflow
    foreign key (workflow_id, workflow_created_at) references workflows on delete cascade;

alter table workflow_extraction_snapshots add column workflow_created_at timestamptz;
update workflow_extraction_snapshots c set workflow_created_at = w.created_at
from workflows w where w.workflow_id = c.workflow_id;
alter table workflow_extraction_snapshots alter column workflow_created_at set not null;
alter table workflow_extraction_snapshots add constraint fk_extraction_snapshots_workflow
    foreign key (workflow_id, workflow_created_at) references workflows on delete cascade;

do $$
begin
    if (select count(*) from workflows) <> (select count(*) from workflows_unpartitioned) then
        raise exception 'not every workflow was moved';
    end if;
end
$$;
drop table workflows_unpartitioned;

create view workflow_extraction_summary as
select w.workflow_id, w.title, w.unified_extraction_success,
       (select count(*) from workflow_node_contexts c where c.workflow_id = w.workflow_id) as node_context_count,
       (select count(*) from workflow_standalone_docs d where d.workflow_id = w.workflow_id) as standalone_doc_count
from workflows w;
