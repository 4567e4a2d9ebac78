-- Finds the call of a dial.
--
-- Locks: deliveries wait while the index is built.

create index events_of_dial on events (bucket, call_sid) where call_sid is not null;

comment on index events_of_dial is 'The call that a telephony provider''s id of a dial belongs to.';
