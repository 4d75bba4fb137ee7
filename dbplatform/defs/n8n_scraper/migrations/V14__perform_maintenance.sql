-- Statistics and archive in one call. Old snapshots are not deleted here: they leave by the archive old_snapshots,
-- which keeps them in a file and deletes only behind a proven backup.

create function perform_maintenance() returns void language plpgsql as $$
begin
    perform archive_old_workflows();
    analyze workflows;
    analyze workflow_node_contexts;
    analyze workflow_standalone_docs;
    analyze workflow_extraction_snapshots;
end
$$;
comment on function perform_maintenance() is 'Archives old workflows and refreshes the statistics of the planner.';
