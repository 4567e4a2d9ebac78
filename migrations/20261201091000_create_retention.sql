-- Retention: up to where the payloads of the feed have been examined.
--
-- Payloads are removed in the order of the feed, so this is where the next batch begins,
-- and no index is needed to find it. Each batch holds the lock of the row, so that
-- several instances do not do the same work at once.
--
-- Locks: none, it only creates a table.

create table retention (
    is_only boolean primary key default true check (is_only),
    payload_position bigint not null
);

comment on table retention is 'One row: up to where retention has worked. Each batch of retention holds its lock.';
comment on column retention.is_only is 'Always true: there is one row.';
comment on column retention.payload_position is 'Events up to this position of the feed have no payload that is still to be removed.';

insert into retention (payload_position) values (0);
