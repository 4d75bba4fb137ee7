drop trigger notes_keep_revision on notes;
drop function keep_note_revision();
drop table note_revisions;
