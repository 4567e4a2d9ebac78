-- The order of the quarantine: it is listed from the newest on, and the oldest
-- go when it is full or they are too old.
--
-- The time of the first receipt never changes, so an entry keeps its place, and
-- a cursor stays right, however often the same delivery comes again.
--
-- Locks: deliveries that cannot be understood wait while the index is built.

create index quarantine_in_order on quarantine (first_received_at, id);

comment on index quarantine_in_order is 'The quarantine by age: for listing it, and for letting the oldest go.';
