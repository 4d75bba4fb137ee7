drop trigger trigger_update_workflow_search_vector on workflows;
drop function update_workflow_search_vector();
alter table workflows drop column search_vector;
