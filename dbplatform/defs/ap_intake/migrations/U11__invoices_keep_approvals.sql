-- dbplatform:accept adding-foreign-key-constraint: an undo gives back the constraint as it was, validated
alter table approvals add constraint approvals_invoice_id_fkey
    foreign key (invoice_id) references invoices on delete cascade;
alter table approvals drop constraint approvals_of_an_invoice_that_stays;
