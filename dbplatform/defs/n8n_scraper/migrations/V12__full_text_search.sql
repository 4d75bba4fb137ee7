-- Search in title, description and author. The trigger keeps the vector; the update fills it for the rows of today.

alter table workflows add column search_vector tsvector;

create function update_workflow_search_vector() returns trigger language plpgsql as $$
begin
    new.search_vector :=
        setweight(to_tsvector('english', coalesce(new.title, '')), 'A')
        || setweight(to_tsvector('english', coalesce(new.metadata ->> 'description', '')), 'B')
        || setweight(to_tsvector('simple', coalesce(new.author, '')), 'C');
    return new;
end
$$;

create trigger trigger_update_workflow_search_vector
    before insert or update on workflows
    for each row execute function update_workflow_search_vector();

update workflows set updated_at = updated_at;
create index idx_workflows_search on workflows using gin (search_vector);
