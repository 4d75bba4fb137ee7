-- The function of V11 searched all that leaves once for each workflow, so that ten times the workflows took a hundred
-- times as long. Now everything that leaves is put together by its workflow in one pass. What is moved is the same.

create or replace function archive_old_workflows() returns bigint language plpgsql as $$
declare
    old_ids varchar[];
    old_times timestamptz[];
    moved bigint;
begin
    -- Locked first, then read anew: a row that refers to one of them and was committed meanwhile is seen below, and
    -- nothing can begin to refer to one afterwards.
    select array_agg(workflow_id), array_agg(created_at) into old_ids, old_times
    from (select workflow_id, created_at from workflows
          where created_at < now() - interval '1 year' and unified_extraction_success
          for update) as locked;

    -- What is stored is what was deleted, row by row: the condition is not asked a second time.
    with old as (
        select * from unnest(old_ids, old_times) as o (workflow_id, created_at)
    ), contexts as (
        delete from workflow_node_contexts c using old o
        where c.workflow_id = o.workflow_id and c.workflow_created_at = o.created_at returning c.*
    ), docs as (
        delete from workflow_standalone_docs d using old o
        where d.workflow_id = o.workflow_id and d.workflow_created_at = o.created_at returning d.*
    ), snapshots as (
        delete from workflow_extraction_snapshots s using old o
        where s.workflow_id = o.workflow_id and s.workflow_created_at = o.created_at returning s.*
    ), gone as (
        delete from workflows w using old o
        where w.workflow_id = o.workflow_id and w.created_at = o.created_at returning w
    ), together as (
        select (w).workflow_id, (w).created_at, 'workflow' as kind, w as workflow, null::jsonb as child from gone
        union all
        select workflow_id, workflow_created_at, 'context', null, to_jsonb(c) from contexts c
        union all
        select workflow_id, workflow_created_at, 'doc', null, to_jsonb(d) from docs d
        union all
        select workflow_id, workflow_created_at, 'snapshot', null, to_jsonb(s) from snapshots s
    ), archived as (
        select (array_agg(workflow) filter (where kind = 'workflow'))[1] as w,
               coalesce(jsonb_agg(child) filter (where kind = 'context'), '[]') as node_contexts,
               coalesce(jsonb_agg(child) filter (where kind = 'doc'), '[]') as standalone_docs,
               coalesce(jsonb_agg(child) filter (where kind = 'snapshot'), '[]') as extraction_snapshots
        from together
        group by workflow_id, created_at
    )
    insert into workflows_archive (workflow_id, url, author, categories, views, metadata, workflow_json,
                                   layer2_scraped, layer3_scraped, unified_extraction_success, created_at,
                                   updated_at, title, node_contexts, standalone_docs, extraction_snapshots)
    select (w).workflow_id, (w).url, (w).author, (w).categories, (w).views, (w).metadata, (w).workflow_json,
           (w).layer2_scraped, (w).layer3_scraped, (w).unified_extraction_success, (w).created_at, (w).updated_at,
           (w).title, node_contexts, standalone_docs, extraction_snapshots
    from archived;
    get diagnostics moved = row_count;
    return moved;
end
$$;
