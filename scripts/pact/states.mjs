// The provider states that a pact may name: contracts/pacts/README.md tells them to those who write pacts.
import { randomUUID } from 'node:crypto';

/** A task for one of the provider's pools. */
function taskFor(model, over) {
  return {
    task_id: randomUUID(),
    session_id: randomUUID(),
    workload: 'completion',
    model_ref: model,
    engine: 'llamacpp',
    ctx: 4096,
    priority: 'interactive',
    prompt: 'Tell me about the sea.',
    max_tokens: 12,
    seed: 7,
    deadline_ms: 600_000,
    ...over,
  };
}

/** Members of a task that a state may set. */
function chosen({ task_id, session_id, max_tokens, prompt, seed }) {
  const given = Object.entries({ task_id, session_id, max_tokens, prompt, seed });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

async function submit(provider, model, over) {
  const task = taskFor(model, over);
  await provider.must('POST', '/v1/tasks', task);
  return task.task_id;
}

async function readToEnd(provider, taskId) {
  await (await provider.must('GET', `/v1/tasks/${taskId}/stream`)).text();
}

async function untilStatus(provider, taskId, status) {
  const look = () => provider.database.query('SELECT 1 FROM tasks WHERE id = $1 AND status = $2', [taskId, status]);
  await provider.waitFor(`${status} of task ${taskId}`, async () => (await look()).rows.length === 1);
}

/** The only slot is taken, and the only place in the queue. */
async function fill(provider, model) {
  await untilStatus(provider, await submit(provider, model, { max_tokens: 2000 }), 'STREAMING');
  await submit(provider, model, { max_tokens: 2000 });
}

async function endedTask(provider, model, params) {
  const taskId = await submit(provider, model, chosen(params));
  await readToEnd(provider, taskId);
  return { task_id: taskId };
}

/** @returns what the verifier asks for: by name, functions of the state's parameters. */
export function stateHandlers(provider) {
  return {
    'a pool is ready': async () => {},
    'there is no such thing': async () => {},
    'a pool is not ready': async () => {
      const failed = "SELECT 1 FROM replicas WHERE pool_id = 'unready' AND state = 'FAILED'";
      await provider.waitFor('the failure', async () => (await provider.database.query(failed)).rows.length > 0);
    },
    'a task is running': async (params = {}) => {
      const taskId = await submit(provider, 'sim-slow', { max_tokens: 2000, ...chosen(params) });
      await untilStatus(provider, taskId, 'STREAMING');
      return { task_id: taskId };
    },
    'a task waits': async (params = {}) => {
      await untilStatus(provider, await submit(provider, 'sim-slow', { max_tokens: 2000 }), 'STREAMING');
      return { task_id: await submit(provider, 'sim-slow', chosen(params)) };
    },
    'a task has ended': (params = {}) => endedTask(provider, 'sim-7b', params),
    'a task has failed': (params = {}) => endedTask(provider, 'sim-failing', params),
    'a task was canceled': async (params = {}) => {
      const taskId = await submit(provider, 'sim-slow', { max_tokens: 2000, ...chosen(params) });
      await untilStatus(provider, taskId, 'STREAMING');
      await provider.must('POST', `/v1/tasks/${taskId}/cancel`);
      return { task_id: taskId };
    },
    'a session exists': async (params = {}) => {
      const session_id = params.session_id ?? randomUUID();
      await endedTask(provider, 'sim-7b', { session_id });
      return { session_id };
    },
    'the queue is full': async ({ policy = 'reject' } = {}) => {
      await fill(provider, policy === 'drop-lru' ? 'sim-slow-lru' : 'sim-slow');
    },
    'a pool is drained': async ({ pool_id = 'sim' } = {}) => {
      const answer = await provider.must('POST', `/v1/pools/${pool_id}/drain`, { deadline_ms: 10_000 });
      const { operation_id } = await answer.json();
      const over = async () => {
        const operation = await (await provider.must('GET', `/v1/operations/${operation_id}`)).json();
        return operation.state === 'SUCCEEDED';
      };
      await provider.waitFor('an end of the drain', over);
      return { operation_id };
    },
    'a model is in the catalog': async ({ id = 'llama-7b', digest, ...rest } = {}) => {
      const model = { id, digest: digest ?? `sha256:${'0'.repeat(64)}`, ...rest };
      await provider.send('DELETE', `/v1/catalog/models/${encodeURIComponent(id)}`);
      await provider.must('POST', '/v1/catalog/models', model);
      return { model_id: id };
    },
    'a model is not in the catalog': async ({ id = 'llama-7b' } = {}) => {
      await provider.send('DELETE', `/v1/catalog/models/${encodeURIComponent(id)}`);
    },
    'an artifact is kept': async ({ kind = 'plan', content = { steps: [] }, ...rest } = {}) => {
      const answer = await provider.must('POST', '/v1/artifacts', { kind, content, ...rest });
      return { artifact_id: (await answer.json()).id };
    },
  };
}
