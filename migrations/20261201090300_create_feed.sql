-- The change feed: the positions of events, and the identity of the feed.
--
-- The write statement locks the row of feed after it has written the calls, takes
-- positions from the sequence, and holds the lock to the commit. So positions become
-- visible in order: a reader that has read up to position n misses nothing by asking
-- for greater ones. A transaction that is rolled back leaves a gap.
--
-- The row is locked and not updated: versions of it that an old snapshot still sees
-- would slow down every writer.
--
-- Locks: none, it only creates a table, a sequence and a view.

create table feed (
    is_only boolean primary key default true check (is_only),
    feed_id bigint not null
);

comment on table feed is 'One row: the identity of the change feed. Writers hold its lock while they commit events.';
comment on column feed.is_only is 'Always true: there is one row.';
comment on column feed.feed_id is 'A random number that tells this feed from those of copies. `callstate restore-mark` makes a new one.';

insert into feed (feed_id)
select ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint;

create sequence feed_positions as bigint;

comment on sequence feed_positions is 'The values of events.position.';

create view feed_head as
select
    feed.feed_id,
    coalesce((select position from events order by position desc limit 1), 0) as position,
    (select case when is_called then last_value else 0 end from feed_positions) as last_used
from feed;

comment on view feed_head is 'One row: the identity of the change feed and its last position.';
comment on column feed_head.feed_id is 'The identity of the feed.';
comment on column feed_head.position is 'The position of the last event; 0 before the first.';
comment on column feed_head.last_used is 'The last position that a writer has taken, even if its event was not committed or was deleted.';
