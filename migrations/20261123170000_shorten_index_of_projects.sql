-- Calls stand in the index of their project once they have ended.
--
-- The few that are under way are found among those of all projects. So a call is
-- entered once, where it was entered when it began and again when it ended.
--
-- Locks: deliveries wait while the index is built, about two seconds for a
-- million calls.

drop index calls_of_project;

create index calls_of_project
    on calls (bucket, project_id, outcome, marks, first_event_at, call_id)
    where outcome >= 'ERROR';

comment on index calls_of_project is 'Lists of the calls of some projects that have ended; the others are in calls_in_order.';
