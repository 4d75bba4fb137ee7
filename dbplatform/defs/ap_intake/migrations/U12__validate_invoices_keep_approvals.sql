-- A constraint cannot be made unvalidated again: it is made anew, as the version before has it.
alter table approvals drop constraint approvals_of_an_invoice_that_stays;
alter table approvals add constraint approvals_of_an_invoice_that_stays
    foreign key (invoice_id) references invoices not valid;
