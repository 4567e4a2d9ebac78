// The receiver that a team writes by hand: Express and node-postgres, one
// statement per delivery, answered once it is committed.

import { readFileSync } from 'node:fs';
import express from 'express';
import pg from 'pg';

const sql = (name) => readFileSync(new URL(`../receiver/${name}.sql`, import.meta.url), 'utf8');

// Named statements are parsed and planned once per connection.
const storeEvent = { name: 'store_event', text: sql('store_event') };
const findCall = { name: 'find_call', text: sql('find_call') };

const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: Number(process.env.POOL_SIZE ?? 20),
});

const app = express();
app.disable('x-powered-by');
app.use(express.json());

app.post('/webhooks', async (request, response) => {
  const { projectId, eventType, body } = request.body;
  const { callId, callSid, clientId } = body.data;
  const status = eventType.replace(/^(OUTBOUND|INBOUND)_CALL_/, '');
  await pool.query({
    ...storeEvent,
    values: [callId, eventType, JSON.stringify(request.body), projectId, status, callSid, clientId],
  });
  response.json({ call_id: callId, status });
});

app.get('/calls/:id', async (request, response) => {
  const { rows } = await pool.query({ ...findCall, values: [request.params.id] });
  if (rows.length === 0) {
    response.sendStatus(404);
  } else {
    response.json(rows[0]);
  }
});

const server = app.listen(0, '127.0.0.1', (error) => {
  if (error) throw error;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
