/** Pools of real llama-servers on simulated GPUs, and what their engines say when asked past the control plane. */
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { realLlamaServer } from './llamaServer.js';
import type { World } from './world.js';

/** Of the tiny model; a llama-server cuts a longer one down to it. */
export const REAL_CTX = 4096;
const ANSWER_MS = 10_000;

/** The engine to test with, or why there is none. Where one is demanded, its absence is an error. */
export async function realEngineOrReason(): Promise<{ file: string } | { unavailable: string }> {
  const engine = await realLlamaServer();
  // Its API key is read where only Linux shows it.
  const outcome = process.platform === 'linux' ? engine : { unavailable: 'the suite reads /proc, which is not there' };
  if ('file' in outcome) return outcome;
  if (process.env.LLORCH_REQUIRE_REAL_ENGINE === '1') {
    throw new Error(`LLORCH_REQUIRE_REAL_ENGINE=1, but there is no real llama-server: ${outcome.unavailable}`);
  }
  console.warn(`SKIPPED: the tests with a real llama-server did not run: ${outcome.unavailable}`);
  return outcome;
}

export interface RealPool {
  readonly id: string;
  readonly replicas: number;
  readonly slots: number;
  readonly flags?: readonly string[];
}

export function realConfig(facts: { serverFile: string; modelPath: string; pools: readonly RealPool[] }): string {
  const pool = ({ id, replicas, slots, flags = [] }: RealPool) => ({
    ...{ id, engine: 'llamacpp', model: `file:${facts.modelPath}`, ctx: REAL_CTX, devices: [0], replicas, slots },
    provisioning: {
      mode: 'binary',
      binary: { url: pathToFileURL(facts.serverFile).href },
      flags: ['-t', '1', ...flags],
    },
  });
  const gpu = { mode: 'simulated', devices: [{ name: 'Pretended', memory_bytes: 25_769_803_776 }] };
  // YAML takes JSON as it is.
  return JSON.stringify({ gpu, pools: facts.pools.map(pool) });
}

export interface ReplicaRow {
  readonly id: string;
  readonly state: string;
  readonly endpoint: string | null;
  readonly pid: number | null;
  readonly restart_count: number;
}

const REPLICAS = `SELECT id, state, endpoint, pid, restart_count FROM replicas`;

export async function replicaRows(world: World, pool: string): Promise<ReplicaRow[]> {
  return world.database.query<ReplicaRow>(`${REPLICAS} WHERE pool_id = $1 ORDER BY ordinal`, [pool]);
}

export async function replicaRow(world: Pick<World, 'database'>, id: string): Promise<ReplicaRow> {
  const [row] = await world.database.query<ReplicaRow>(`${REPLICAS} WHERE id = $1`, [id]);
  if (row === undefined) throw new Error(`no replica ${id}`);
  return row;
}

/** One engine process, asked directly. */
export class RealEngine {
  readonly pid: number;
  readonly #endpoint: string;

  private constructor(pid: number, endpoint: string) {
    this.pid = pid;
    this.#endpoint = endpoint;
  }

  static async of(world: Pick<World, 'database'>, replicaId: string): Promise<RealEngine> {
    const { pid, endpoint } = await replicaRow(world, replicaId);
    if (pid === null || endpoint === null) throw new Error(`${replicaId} has no engine now`);
    return new RealEngine(pid, endpoint);
  }

  arguments(): readonly string[] {
    return this.#proc('cmdline');
  }

  variable(name: string): string | undefined {
    return this.#proc('environ')
      .find((entry) => entry.startsWith(`${name}=`))
      ?.slice(name.length + 1);
  }

  async busySlots(): Promise<number[]> {
    const slots = JSON.parse(await this.#get('/slots')) as { id: number; is_processing: boolean }[];
    return slots.filter((slot) => slot.is_processing).map((slot) => slot.id);
  }

  /** How often it has decoded so far, and how many slots took part in all of these together. */
  async decodes(): Promise<{ count: number; slots: number }> {
    const text = await this.#get('/metrics');
    const read = (name: string) => Number(new RegExp(`^llamacpp:${name} (\\S+)$`, 'm').exec(text)?.[1]);
    const count = read('n_decode_total');
    return { count, slots: Math.round(count * read('n_busy_slots_per_decode')) };
  }

  /** Prompt tokens that it has read so far, and those that it had in a cache. */
  async promptTokens(): Promise<{ read: number; cached: number }> {
    const text = await this.#get('/metrics');
    const total = (name: string) => Number(new RegExp(`^llamacpp:${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
    return { read: total('prompt_tokens_total'), cached: total('prompt_tokens_cached_total') };
  }

  /** Empties a slot that may be emptied. @returns how many tokens it held. */
  async erase(slot: number): Promise<number> {
    const answer = JSON.parse(await this.#get(`/slots/${slot}?action=erase`, 'POST')) as { n_erased: number };
    return answer.n_erased;
  }

  #proc(file: string): readonly string[] {
    return readFileSync(`/proc/${this.pid}/${file}`, 'utf8').split('\0');
  }

  async #get(path: string, method = 'GET'): Promise<string> {
    const headers = { authorization: `Bearer ${this.variable('LLAMA_API_KEY')}` };
    const response = await fetch(`${this.#endpoint}${path}`, {
      method,
      headers,
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${text}`);
    return text;
  }
}
