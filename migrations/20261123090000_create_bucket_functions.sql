-- The bucket of a call: which shard it lives in, where the database is distributed.
--
-- Plain Postgres has one bucket, 0. A distributed database replaces
-- callstate_buckets() by one that returns 64 or more, before the first call is
-- stored and never after. The program computes the same function
-- (store::bucket); a check on each table holds both to it.
--
-- Locks: none that matter, it only creates functions.

create function callstate_buckets() returns int
    language sql immutable parallel safe
    return 1;

comment on function callstate_buckets() is
    'The number of buckets. Set when the database is created, never changed after.';

-- md5 is the hash that Postgres computes over text immutably. The identifiers
-- hold no control characters, so the line feed keeps them apart. Not in SQL: a
-- check would have it inlined, and so parsed and planned anew, in each statement
-- that writes.
create function callstate_bucket(project_id text, call_id text) returns int
    language plpgsql immutable parallel safe
    as $$
    begin
        if callstate_buckets() = 1 then
            return 0;
        end if;
        return (('x' || left(md5(project_id || e'\n' || call_id), 8))::bit(32)::bigint
                % callstate_buckets())::int;
    end
    $$;

comment on function callstate_bucket(text, text) is
    'The bucket of a call: a fixed hash of its project and its id, modulo the number of buckets.';
