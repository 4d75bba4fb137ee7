-- One row per workflow. The children are counted apart: joined side by side they would multiply.

create view workflow_extraction_summary as
select w.workflow_id, w.title, w.unified_extraction_success,
       (select count(*) from workflow_node_contexts c where c.workflow_id = w.workflow_id) as node_context_count,
       (select count(*) from workflow_standalone_docs d where d.workflow_id = w.workflow_id) as standalone_doc_count
from workflows w;
