-- No code reads the old names any more, and title and node_id hold all that they held.
-- dbplatform:allow drop column
do $$
begin
    if exists (select from workflows where name is not null and title is null) then
        raise exception 'a workflow has a name and no title';
    end if;
end
$$;
alter table workflows drop column name;
alter table workflow_node_contexts drop column node_name;
alter table workflow_node_contexts alter column node_id set not null;
