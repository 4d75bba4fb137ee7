-- The queue that the client shows, and a time of change that no caller has to remember.

create function touch_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;

create trigger extraction_configs_touch before update on extraction_configs
    for each row execute function touch_updated_at();

create view processing_queue as
select p.id, p.file_name, p.status, p.uploaded_at, p.started_at, p.error_message, c.name as config_name
from prescriptions p
left join extraction_configs c on c.id = p.config_id
where p.status in ('queued', 'processing', 'needs_review', 'failed');
comment on view processing_queue is 'Prescriptions that still need a machine or a person.';
