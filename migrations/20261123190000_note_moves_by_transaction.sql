-- A list is read page by page, and a call that moves meanwhile is listed where it stood when the
-- list was begun. Whether it has moved since was told by a time, which leaves a gap: a delivery may
-- be received before a page is read and committed after it; and imports come with times of long ago. A
-- transaction tells it exactly.
--
-- Adds a column that is null, which rewrites nothing, drops another, and builds an index over no
-- rows. Holds `calls` exclusively meanwhile, which is as long as a look through the table takes.
alter table calls
    add column moved_in bigint,
    drop column moved_at;

comment on column calls.moved_in is 'The transaction that last moved first_event_at back, counted as in events.transaction; null where it has not moved.';

create index calls_moved on calls (bucket, moved_in) where moved_in is not null;

comment on index calls_moved is 'Calls that may have moved since a list was begun: nearly empty, as calls seldom move.';
