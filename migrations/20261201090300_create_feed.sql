-- The change feed: the positions of events, and the identity of the feed.
--
-- The write statement locks the row of feed after it has written the calls, takes
-- positions from the sequence, and holds the lock to the commit. So positions become
-- visible in order: a reader that has read up to position n misses nothing by asking
-- for greater ones. A transaction that is rolled back leaves a gap.
--
-- The row is locked and hardly ever updated: versions of it that an old snapshot still
-- sees would slow down every writer.
--
-- An erasure increases feed.erasures under the same lock. The write statement compares it
-- with the number for which the writer has looked up what is erased. So no writer stores an
-- event of a call that is being erased, and only a writer that meets an erasure pays for it.
--
-- Locks: none, it only creates tables, a sequence, a function and a view.

create table feed (
    is_only boolean primary key default true check (is_only),
    feed_id bigint not null,
    erasures bigint not null default 0
);

comment on table feed is 'One row: the identity of the change feed. Writers hold its lock while they commit events.';
comment on column feed.is_only is 'Always true: there is one row.';
comment on column feed.feed_id is 'A random number that tells this feed from those of copies. `callstate restore-mark` makes a new one.';
comment on column feed.erasures is 'The number of times that something was erased.';

insert into feed (feed_id)
select ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint;

create sequence feed_positions as bigint;

comment on sequence feed_positions is 'The values of events.position.';

create function callstate_erasure_conflict() returns text
    language plpgsql volatile
as $$
begin
    raise exception 'something was erased meanwhile' using errcode = 'serialization_failure';
end
$$;

comment on function callstate_erasure_conflict() is 'Rolls back a write that was decided before an erasure was committed, so that it is decided again.';

create table erased_calls (
    position bigint primary key,
    call_id text collate "C" not null,
    project_id text collate "C" not null,
    erased_at timestamptz not null
);

comment on table erased_calls is 'Erasures of calls in the change feed, for copies to follow. Removed after 30 days.';
comment on column erased_calls.position is 'The position in the change feed.';
comment on column erased_calls.call_id is 'The provider''s id of the call.';
comment on column erased_calls.project_id is 'The customer''s project at the provider.';
comment on column erased_calls.erased_at is 'When it was erased.';

create view feed_head as
select
    feed.feed_id,
    greatest(
        (select position from events order by position desc limit 1),
        (select position from erased_calls order by position desc limit 1),
        0
    ) as position,
    (select case when is_called then last_value else 0 end from feed_positions) as last_used
from feed;

comment on view feed_head is 'One row: the identity of the change feed and its last position.';
comment on column feed_head.feed_id is 'The identity of the feed.';
comment on column feed_head.position is 'The position of the last event or erasure; 0 before the first.';
comment on column feed_head.last_used is 'The last position that a writer has taken, even if its event was not committed or was deleted.';
