with event as (
    insert into events (call_id, event_type, payload)
    values ($1, $2, $3)
)
insert into calls (call_id, project_id, status, call_sid, client_id)
values ($1, $4, $5, $6, $7)
on conflict (call_id) do update set
    status = excluded.status,
    call_sid = coalesce(excluded.call_sid, calls.call_sid),
    client_id = coalesce(excluded.client_id, calls.client_id),
    updated_at = now()
