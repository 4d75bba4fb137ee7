drop index concurrently if exists idx_staged_exports_status_created;
drop index concurrently if exists idx_validations_passed_created;
drop index concurrently if exists idx_extractions_created_confidence;
drop index concurrently if exists idx_invoices_vendor_created_status;
drop index concurrently if exists idx_exceptions_resolved_created;
drop index concurrently if exists idx_invoices_workflow_status_created;
drop index concurrently if exists idx_invoices_file_hash_created;
