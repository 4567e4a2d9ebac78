-- Rows are soon known to be visible to all, so that reports need not look at them.
--
-- What a report counts is in indexes; whether a row counts is asked of its page,
-- unless vacuum has noted that all of the page does. By default vacuum comes to a
-- table that only grows once a fifth has come anew, which is weeks of a busy
-- store. Coming after so many rows it reads each page no more often, and while it
-- is still in memory.
--
-- Locks: none that matter; a vacuum of these tables that is under way is waited for.

alter table events set (
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000
);

-- An event is a row for good, a call is rewritten for some minutes.
alter table calls set (
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 20000
);
