/** Control planes that share a database, each a real process with a data directory and engines of its own. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { TestDatabase } from './database.js';
import { gql } from './graphql.js';
import { makeHome, type ServerProcess, startServer } from './server.js';

export interface PoolOptions {
  readonly id: string;
  readonly model?: string;
  readonly slots?: number;
  readonly tokensPerSecond?: number;
  readonly flags?: readonly string[];
  /** Of its engine. */
  readonly env?: Readonly<Record<string, string>>;
}

/** A configuration of simulated pools with one replica each. */
export function nodeConfig(pools: readonly PoolOptions[]): string {
  const one = ({ id, model = `${id}-7b`, slots = 2, tokensPerSecond = 20, flags = [], env = {} }: PoolOptions) => `
  - id: ${id}
    engine: llamacpp
    model: ${model}
    ctx: 4096
    devices: [0]
    replicas: 1
    slots: ${slots}
    timeouts: { wall_ms: 120000, idle_ms: 10000 }
    provisioning:
      mode: simulated
      flags: ${JSON.stringify(flags)}
      env: ${JSON.stringify(env)}
      simulated: { tokens_per_second: ${tokensPerSecond}, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }`;
  return `gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }\npools:${pools.map(one).join('')}\n`;
}

export class TestNode {
  readonly home: string;
  readonly #configFile: string;
  readonly #database: TestDatabase;
  readonly #remove: () => Promise<void>;
  #server: ServerProcess | null = null;

  private constructor(home: { path: string; remove: () => Promise<void> }, database: TestDatabase) {
    this.home = home.path;
    this.#configFile = join(home.path, 'config.yaml');
    this.#remove = home.remove;
    this.#database = database;
  }

  /** Not started yet. */
  static async make(database: TestDatabase, pools: readonly PoolOptions[]): Promise<TestNode> {
    const node = new TestNode(await makeHome(), database);
    await writeFile(node.#configFile, nodeConfig(pools));
    return node;
  }

  get server(): ServerProcess {
    if (this.#server === null) throw new Error('the node has not been started');
    return this.#server;
  }

  get url(): string {
    return this.server.url;
  }

  get args(): string[] {
    return ['--config', this.#configFile];
  }

  get env(): Record<string, string> {
    return { DATABASE_URL: this.#database.url };
  }

  async start(): Promise<this> {
    this.#server = await startServer(this.home, { args: this.args, env: this.env });
    return this;
  }

  /** @returns the exit code; null after a kill. */
  async end(signal: 'SIGINT' | 'SIGKILL'): Promise<number | null> {
    this.server.signal(signal);
    return (await this.server.exited).code;
  }

  remove(): Promise<void> {
    return this.#remove();
  }
}

export interface PoolView {
  readonly name: string;
  readonly ready: boolean;
  readonly draining: boolean;
  readonly notReadyBecause: readonly { readonly code: string }[];
  readonly replicas: readonly { readonly name: string; readonly state: string; readonly restartCount: number }[];
}

/** The pools as a node tells them, by name. */
export async function poolsAt(url: string): Promise<Map<string, PoolView>> {
  const fields = 'name ready draining notReadyBecause { code } replicas { name state restartCount }';
  const { data, errors } = await gql(url, `{ pools { ${fields} } }`);
  expect(errors).toBeUndefined();
  return new Map(data.pools.map((pool: PoolView) => [pool.name, pool]));
}
