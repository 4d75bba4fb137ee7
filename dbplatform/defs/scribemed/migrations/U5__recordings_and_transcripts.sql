drop table transcripts;
drop table recordings;
