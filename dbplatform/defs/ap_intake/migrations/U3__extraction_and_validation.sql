drop table exceptions;
drop table validations;
drop table invoice_extractions;
