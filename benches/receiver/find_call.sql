select call_id, project_id, status, call_sid, client_id, created_at, updated_at
from calls
where call_id = $1
