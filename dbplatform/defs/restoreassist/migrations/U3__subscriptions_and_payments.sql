drop table payments;
drop table subscription_history;
drop table subscriptions;
drop table subscription_plans;
