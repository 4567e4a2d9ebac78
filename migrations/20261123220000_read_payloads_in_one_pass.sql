-- `reporting.payload_text` failed on a backslash that is followed by what would be half of a
-- surrogate pair, then by the other half alone; and it looked behind from the beginning of the
-- payload for each escape, which takes seconds where there are many.
--
-- Locks: none that matter, it only replaces a function.

-- What Postgres cannot hold as text is shown as U+FFFD, as everywhere else. Most
-- payloads have none of it, so they are read as they are first. Of the others
-- the escaped backslashes are written as \u005c, so that every backslash that is
-- left begins an escape. Then NUL and the first halves of pairs that have no second
-- are replaced. Every first half that is left has a second, which is set aside as
-- \u~, no legal escape, while those without a first are replaced.
create or replace function reporting.payload_text(payload json, variadic path text[]) returns text
    language plpgsql immutable strict parallel safe
    as $function$
    declare
        escaped text;
    begin
        return payload #>> path;
    exception
        when data_exception then
            -- quoted by dollars, as a session may read backslashes between apostrophes otherwise
            escaped := replace(payload::text, $$\\$$, $$\u005c$$);
            escaped := regexp_replace(
                escaped,
                $$\\u(0000|[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2}))$$,
                $$\\ufffd$$,
                'g'
            );
            escaped := regexp_replace(
                escaped, $$(\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD]$$, $$\1\\u~$$, 'g'
            );
            escaped := regexp_replace(
                escaped, $$\\u[dD][c-fC-F][0-9a-fA-F]{2}$$, $$\\ufffd$$, 'g'
            );
            return replace(escaped, $$\u~$$, $$\ud$$)::json #>> path;
    end
    $function$;
