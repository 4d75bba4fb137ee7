-- What may never come in. What is only suspicious (no title, no address) is counted, not refused.

alter table workflows add constraint workflows_url_is_http check (url ~ '^https?://') not valid;
alter table workflows add constraint workflows_views_not_negative check (views >= 0) not valid;
alter table workflows add constraint workflows_success_has_layers
    check (not unified_extraction_success or (layer2_scraped and layer3_scraped)) not valid;
alter table workflow_node_contexts add constraint node_contexts_position_is_a_point
    check (jsonb_typeof(node_position) = 'array' and jsonb_array_length(node_position) = 2) not valid;

alter table workflows validate constraint workflows_url_is_http;
alter table workflows validate constraint workflows_views_not_negative;
alter table workflows validate constraint workflows_success_has_layers;
alter table workflow_node_contexts validate constraint node_contexts_position_is_a_point;
