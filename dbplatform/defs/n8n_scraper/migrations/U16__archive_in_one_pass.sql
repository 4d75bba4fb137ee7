-- As V11 made it.
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
        where w.workflow_id = o.workflow_id and w.created_at = o.created_at returning w.*
    )
    insert into workflows_archive (workflow_id, url, author, categories, views, metadata, workflow_json,
                                   layer2_scraped, layer3_scraped, unified_extraction_success, created_at,
                                   updated_at, title, node_contexts, standalone_docs, extraction_snapshots)
    select g.workflow_id, g.url, g.author, g.categories, g.views, g.metadata, g.workflow_json,
           g.layer2_scraped, g.layer3_scraped, g.unified_extraction_success, g.created_at, g.updated_at, g.title,
           (select coalesce(jsonb_agg(to_jsonb(c)), '[]') from contexts c where c.workflow_id = g.workflow_id),
           (select coalesce(jsonb_agg(to_jsonb(d)), '[]') from docs d where d.workflow_id = g.workflow_id),
           (select coalesce(jsonb_agg(to_jsonb(s)), '[]') from snapshots s where s.workflow_id = g.workflow_id)
    from gone g;
    get diagnostics moved = row_count;
    return moved;
end
$$;
