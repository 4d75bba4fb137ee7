drop table note_diagnoses;
drop table icd10_codes;
