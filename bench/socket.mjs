/** A lean client of GraphQL over WebSocket (graphql-transport-ws): one socket, operations by number, no library. */
import { WebSocket } from 'ws';

const DEADLINE_MS = 60_000;

export const SUBMIT = 'mutation ($input: SubmitTaskInput!) { submitTask(input: $input) { __typename } }';
export const EVENTS =
  'subscription ($taskId: UUID!) { taskEvents(taskId: $taskId) { __typename seq ... on TaskTokens { tokens } } }';

export class GraphSocket {
  /** @type {WebSocket} */
  #socket;
  #nextId = 0;
  /** @type {Map<string, { onNext: (data: any) => void, resolve: () => void, reject: (error: Error) => void }>} */
  #operations = new Map();

  /** @param {WebSocket} socket */
  constructor(socket) {
    this.#socket = socket;
    socket.on('message', (data) => this.#onMessage(JSON.parse(String(data))));
    socket.once('close', (code) => this.#failAll(new Error(`the socket closed with ${code}`)));
  }

  /** Connects and is acknowledged. */
  static async connect(url) {
    const socket = await openSocket(url);
    socket.send('{"type":"connection_init"}');
    await new Promise((resolve, reject) => {
      socket.once('message', resolve);
      socket.once('close', (code) => reject(new Error(`refused with ${code}`)));
    });
    return new GraphSocket(socket);
  }

  /** Runs one operation; `onNext` sees the data of every answer, the promise its completion. */
  run(query, variables, onNext) {
    this.#nextId += 1;
    const id = String(this.#nextId);
    const done = new Promise((resolve, reject) => this.#operations.set(id, { onNext, resolve, reject }));
    this.#socket.send(JSON.stringify({ id, type: 'subscribe', payload: { query, variables } }));
    return done;
  }

  /** A pong comes after everything sent before it was read: what was subscribed until now has reached the server. */
  async ping() {
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no pong in time')), DEADLINE_MS);
      this.#socket.once('pong', () => {
        clearTimeout(timer);
        resolve();
      });
      this.#socket.ping();
    });
  }

  get isOpen() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  get running() {
    return this.#operations.size;
  }

  close() {
    this.#socket.terminate();
  }

  #onMessage({ id, type, payload }) {
    const operation = this.#operations.get(id);
    if (operation === undefined) return;
    if (type === 'next' && payload.errors === undefined) return operation.onNext(payload.data);
    this.#operations.delete(id);
    if (type === 'complete') operation.resolve();
    else operation.reject(new Error(JSON.stringify(payload)));
  }

  #failAll(error) {
    for (const operation of this.#operations.values()) operation.reject(error);
    this.#operations.clear();
  }
}

/** @param {string} url http://host:port @returns {Promise<WebSocket>} */
export function openSocket(url) {
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/graphql`, 'graphql-transport-ws', {
    perMessageDeflate: false,
  });
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(socket));
    socket.once('error', reject);
  });
}

/** The same task as `taskBody`, in the words of the mutation. */
export function submitInput(body) {
  const { task_id: taskId, session_id: sessionId, model_ref: modelRef, ctx, prompt } = body;
  return {
    taskId,
    sessionId,
    modelRef,
    engine: 'LLAMACPP',
    ctx,
    prompt,
    maxTokens: body.max_tokens,
    deadlineMs: body.deadline_ms,
  };
}

/** Submits and waits for the receipt. */
export async function submit(socket, body) {
  let answer = '';
  const onNext = ({ submitTask }) => {
    answer = submitTask.__typename;
  };
  await socket.run(SUBMIT, { input: submitInput(body) }, onNext);
  if (answer !== 'TaskAccepted') throw new Error(`submitTask answered ${answer}`);
}
