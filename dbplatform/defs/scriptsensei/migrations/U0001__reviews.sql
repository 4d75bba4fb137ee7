drop table field_reviews;
drop table reviewers;
