-- Built while the application works: each statement runs by itself, outside a transaction.

-- The list of reports, page by page.
create index concurrently idx_reports_page on reports (organization_id, created_at desc, id);

-- The same list, filtered by status.
create index concurrently idx_reports_page_by_status on reports (organization_id, status, created_at desc);

-- Reports per state and month.
create index concurrently idx_reports_state on reports (state, created_at);

-- Search inside the content of reports.
create index concurrently idx_reports_content on reports using gin (content jsonb_path_ops);

-- The hourly expiry of trials.
create index concurrently idx_trial_tokens_expiry on trial_tokens (expires_at) where status in ('pending', 'active');
