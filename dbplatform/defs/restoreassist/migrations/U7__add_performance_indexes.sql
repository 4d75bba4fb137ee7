drop index concurrently if exists idx_trial_tokens_expiry;
drop index concurrently if exists idx_reports_content;
drop index concurrently if exists idx_reports_state;
drop index concurrently if exists idx_reports_page_by_status;
drop index concurrently if exists idx_reports_page;
