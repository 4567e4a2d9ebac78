-- What the reports count events by: when something happened, and what went
-- wrong.
--
-- Events hardly ever change what is indexed here, and most of them are the
-- newest, so the first index grows at its end.
--
-- Locks: deliveries wait while the indexes are built, about fifteen seconds for
-- six million events.

create index events_in_time on events (bucket, effective_at)
    include (project_id, event_type, from_status, to_status);

comment on index events_in_time is 'Which types of events come when, and when calls come to a status or leave it.';

create index events_with_errors on events (bucket, call_id, project_id) where errors is not null;

comment on index events_with_errors is 'The few events of a call that carry errors.';
