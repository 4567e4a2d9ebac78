-- Epochs of a stream are known by when they began, besides their number.
--
-- A number comes again: where a copy is put back that was made in epoch 1, epoch 2
-- begins once more, and an id of the one that was lost would pass for one of the
-- present. When an epoch began does not come again, and ids say it from now on.
-- What has begun before has no such name and goes on without: its ids stay as they
-- were handed out.
--
-- By default, so that an epoch has a name too that an instance of the release
-- before begins.
--
-- Locks: connections that are about to write or to listen for the first time wait,
-- for a moment.

alter table stream_epochs add column begun_at timestamptz;
alter table stream_epochs alter column begun_at set default clock_timestamp();

comment on column stream_epochs.begun_at is 'When it began, by the clock of the database: with its number, what ids know it by. Null where it began before that was noted.';
