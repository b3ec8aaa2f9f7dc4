/** `llama-orch run`: submits a prompt through GraphQL and writes its tokens as they come. Ctrl-C cancels the task. */
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import type { Client } from 'graphql-ws';
import { connect, followTask, RequestError, request, type TaskEvent } from '../client/connection.js';
import type { SubmitTaskInput } from '../client/gql/graphql.js';
import { cancelTaskDocument, poolsDocument, submitTaskDocument } from '../client/operations.js';

const DEFAULT_ADDR = '127.0.0.1:8080';
const DEFAULT_MAX_TOKENS = 128;
/** A restart of the server takes seconds; a stream waits for it this long. */
const PATIENCE_MS = 60_000;
const RETRY_EVERY_MS = 250;
const EXIT_CANCELED = 130;

class UsageError extends Error {}

interface RunArguments {
  readonly prompt: string;
  readonly url: string;
  readonly pool: string | null;
  readonly seed: string | null;
  readonly maxTokens: number;
}

function readArguments(args: readonly string[], env: NodeJS.ProcessEnv): RunArguments {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      pool: { type: 'string' },
      seed: { type: 'string' },
      'max-tokens': { type: 'string', default: String(DEFAULT_MAX_TOKENS) },
      url: { type: 'string' },
    },
  });
  const prompt = positionals.join(' ');
  if (prompt === '') throw new UsageError('Give a prompt: llama-orch run "hello"');
  const { seed = null, pool = null } = values;
  if (seed !== null && !/^-?\d+$/.test(seed)) throw new UsageError(`--seed must be a whole number, not "${seed}"`);
  const maxTokens = Number(values['max-tokens']);
  if (!Number.isInteger(maxTokens))
    throw new UsageError(`--max-tokens must be a whole number, not "${values['max-tokens']}"`);
  return { prompt, pool, seed, maxTokens, url: values.url ?? `http://${env.ORCHD_ADDR ?? DEFAULT_ADDR}` };
}

/** The pool that was asked for, else the first that is ready. */
async function choosePool(client: Client, wanted: string | null): Promise<string> {
  if (wanted !== null) return wanted;
  const { pools } = await request(client, poolsDocument, {});
  const pool = pools.find((candidate) => candidate.ready) ?? pools[0];
  if (pool === undefined) throw new RequestError(['the server has no pool']);
  return pool.name;
}

async function submit(client: Client, args: RunArguments): Promise<string> {
  const input: SubmitTaskInput = {
    taskId: randomUUID(),
    pool: await choosePool(client, args.pool),
    prompt: args.prompt,
    maxTokens: args.maxTokens,
    ...(args.seed === null ? {} : { seed: args.seed }),
  };
  const { submitTask } = await request(client, submitTaskDocument, { input });
  if (submitTask.__typename === 'TaskAccepted') return submitTask.taskId;
  throw new RequestError([`${submitTask.code}: ${submitTask.field ?? ''} ${submitTask.message}`]);
}

/** Tokens go to standard output, everything about them to standard error, so that the text can be piped. */
function show(event: TaskEvent): number | null {
  switch (event.__typename) {
    case 'TaskTokens':
      process.stdout.write(event.tokens.join(''));
      return null;
    case 'TaskSeam':
      process.stderr.write(`\n[went on after ${event.index} tokens on another engine]\n`);
      return null;
    case 'TaskEnded':
      process.stdout.write('\n');
      process.stderr.write(
        `[${event.tokensOut} tokens, ${event.decodeTimeMs} ms, ${event.canceled ? 'canceled' : event.finishReason}]\n`,
      );
      return event.canceled ? EXIT_CANCELED : 0;
    case 'TaskFailed':
      process.stdout.write('\n');
      process.stderr.write(`${event.error.code}: ${event.error.message}\n`);
      return 1;
    default:
      return null;
  }
}

async function stream(client: Client, taskId: string): Promise<number> {
  let canceling: Promise<unknown> | null = null;
  process.on('SIGINT', () => {
    if (canceling !== null) process.exit(EXIT_CANCELED);
    canceling = request(client, cancelTaskDocument, { input: { taskId } });
    canceling.catch((error: unknown) => {
      process.stderr.write(`\ncould not cancel: ${error instanceof Error ? error.message : String(error)}\n`);
      process.exit(1);
    });
  });
  const onLost = () => process.stderr.write('\n[connection lost; waiting for the server]\n');
  for await (const event of followTask(client, taskId, {
    patienceMs: PATIENCE_MS,
    retryEveryMs: RETRY_EVERY_MS,
    onLost,
  })) {
    const code = show(event);
    if (code === null) continue;
    // The stream can end before the answer to the cancel is here; the connection must wait for it.
    await canceling;
    return code;
  }
  return 1;
}

function explain(error: unknown, url: string): string {
  if (error instanceof UsageError || error instanceof RequestError) return error.message;
  return `No control plane answers at ${url}.\n  Fix: start one with \`npm start\`, or name another with --url.`;
}

/** @returns the exit code: 0 done, 130 canceled, 1 failed, 2 wrong usage. */
export async function runTask(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  let url = '';
  let client: Client | null = null;
  try {
    const parsed = readArguments(args, env);
    url = parsed.url;
    client = connect(url, env.AUTH_TOKEN ?? null);
    return await stream(client, await submit(client, parsed));
  } catch (error) {
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')) throw error;
    process.stderr.write(`${explain(error, url)}\n`);
    return error instanceof UsageError ? 2 : 1;
  } finally {
    await client?.dispose();
  }
}
