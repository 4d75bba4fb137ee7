drop table report_photos;
drop table report_line_items;
drop table reports;
drop table insurance_claims;
