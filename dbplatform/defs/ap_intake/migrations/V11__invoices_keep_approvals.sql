-- Policies do not bind foreign keys: whoever deleted an invoice deleted everybody's approvals along. From now on an
-- invoice that somebody has approved or rejected cannot be deleted. Old rows are checked in the next version, without
-- stopping writers. Where an application uses a pool it says who works within each transaction: set local.

alter table approvals add constraint approvals_of_an_invoice_that_stays
    foreign key (invoice_id) references invoices not valid;
-- dbplatform:accept ban-drop-constraint: the one above takes its place in the same transaction, and demands more
alter table approvals drop constraint approvals_invoice_id_fkey;
