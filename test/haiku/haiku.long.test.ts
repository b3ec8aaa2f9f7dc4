/**
 * The anti-cheat run: what comes out at the door was made by a real engine, now. The prompt carries the minute in words
 * and a nonce that nobody knew before; the counters of the engine itself must move by just the tokens that were told.
 *
 * LLORCH_HAIKU_MODEL is a model that can write. REQUIRE_REAL_LLAMA=1 makes it an error that it, or llama-server, is missing;
 * LLORCH_REQUIRE_REAL_ENGINE=1, for machines that have no such model, asks for llama-server alone.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readlink, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SAMPLER_PROFILE } from '../../src/engines/sampling.js';
import { realLlamaServer } from '../support/llamaServer.js';
import { REAL_CTX, RealEngine, realConfig, replicaRow } from '../support/realEngine.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { writeTinyModel } from '../support/tinyModel.js';
import { startWorld, type World } from '../support/world.js';
import { minuteInWords } from './minute.js';

/** A model that is asked for prose may miss; one that never sees the prompt misses every time. */
const TRIES = 5;
const ANSWER_MS = 60_000;
const START_MS = 300_000;

const server = await realLlamaServer();
const noServer = 'unavailable' in server ? `no llama-server: ${server.unavailable}` : '';
const writer = process.env.LLORCH_HAIKU_MODEL ?? '';
const noWriter = existsSync(writer)
  ? ''
  : `LLORCH_HAIKU_MODEL names no file: set it to the .gguf of a model that can write${writer === '' ? '' : `, not ${writer}`}`;
for (const reason of [noServer, noWriter]) if (reason !== '') console.warn(`SKIPPED: ${reason}`);

const { REQUIRE_REAL_LLAMA, LLORCH_REQUIRE_REAL_ENGINE } = process.env;
const required = [
  ...(REQUIRE_REAL_LLAMA === '1' || LLORCH_REQUIRE_REAL_ENGINE === '1' ? [noServer] : []),
  ...(REQUIRE_REAL_LLAMA === '1' ? [noWriter] : []),
];
it.runIf(required.length > 0)('what is required is there', () => {
  expect(required.filter((reason) => reason !== '')).toEqual([]);
});

interface Counters {
  readonly tokensIn: number;
  readonly tokensOut: number;
}

/** One pool of one real engine that nothing else uses: no canary decodes in between. */
class House {
  readonly world: World;
  readonly modelPath: string;
  readonly #engine: RealEngine;
  readonly #endpoint: string;

  private constructor(world: World, modelPath: string, engine: RealEngine, endpoint: string) {
    this.world = world;
    this.modelPath = modelPath;
    this.#engine = engine;
    this.#endpoint = endpoint;
  }

  static async open(serverFile: string, modelPath: string): Promise<House> {
    const config = JSON.parse(realConfig({ serverFile, modelPath, pools: [{ id: 'real', replicas: 1, slots: 1 }] }));
    config.pools[0].health = { canary_every_ms: 0 };
    const world = await startWorld({ config: JSON.stringify(config) });
    const { endpoint } = await replicaRow(world, 'real-0');
    return new House(world, modelPath, await RealEngine.of(world, 'real-0'), endpoint ?? '');
  }

  /** The file that the engine's process runs. */
  program(): Promise<string> {
    return readlink(`/proc/${this.#engine.pid}/exe`);
  }

  async counters(): Promise<Counters> {
    const text = await (await this.#ask('/metrics')).text();
    const read = (name: string) => Number(new RegExp(`^llamacpp:${name} (\\S+)$`, 'm').exec(text)?.[1]);
    return { tokensIn: read('prompt_tokens_total'), tokensOut: read('tokens_predicted_total') };
  }

  /** What the engine says to a prompt when it is asked past the control plane. */
  async directly(prompt: string, seed: number, maxTokens: number): Promise<string> {
    const { temperature, topK, topP, minP } = SAMPLER_PROFILE;
    const sampling = { temperature, top_k: topK, top_p: topP, min_p: minP };
    const body = { prompt, seed, n_predict: maxTokens, ...sampling, cache_prompt: false, stream: false };
    return ((await (await this.#ask('/completion', body)).json()) as { content: string }).content;
  }

  async isSimulated(): Promise<boolean> {
    return (await this.#ask('/sim/control')).ok;
  }

  /** Through REST, as any client. */
  async say(prompt: string, seed: number, maxTokens: number): Promise<{ text: string; frames: SseFrame[] }> {
    const request = taskRequest({
      ...{ prompt, seed, max_tokens: maxTokens, ctx: REAL_CTX, model_ref: `file:${this.modelPath}` },
      deadline_ms: ANSWER_MS,
    });
    const response = await post(this.world.url, '/v1/tasks', request);
    expect(response.status, await response.text()).toBe(202);
    const frames = await readStream(this.world.url, request.task_id);
    return { text: tokensOf(frames).join(''), frames };
  }

  #ask(path: string, body?: object): Promise<Response> {
    return fetch(`${this.#endpoint}${path}`, {
      headers: {
        authorization: `Bearer ${this.#engine.variable('LLAMA_API_KEY')}`,
        'content-type': 'application/json',
      },
      ...(body !== undefined && { method: 'POST', body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
  }
}

function challenge(): { minute: string; nonce: string; prompt: string } {
  const minute = minuteInWords(new Date());
  const nonce = randomBytes(4).toString('hex').toUpperCase();
  const wish = `Write a haiku about a clock. It must contain the words "${minute}" and the code ${nonce}.`;
  return { minute, nonce, prompt: `${wish}\n\nHaiku:\n` };
}

function tokensOutOf(frames: readonly SseFrame[]): number {
  return Number(frames.find(({ event }) => event === 'end')?.data.tokens_out);
}

describe.skipIf(noServer !== '')('the way to a real engine', () => {
  let folder: string;
  let house: House;
  beforeAll(async () => {
    if ('unavailable' in server) return;
    folder = await mkdtemp(join(tmpdir(), 'llama-orch-haiku-'));
    await writeTinyModel(join(folder, 'tiny.gguf'));
    house = await House.open(server.file, join(folder, 'tiny.gguf'));
  }, START_MS);
  afterAll(async () => {
    await house?.world[Symbol.asyncDispose]();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  });

  it('has no simulator on it', async () => {
    // Ours is a script that Node runs, and has a switchboard.
    expect(await house.program()).not.toBe(await realpath(process.execPath));
    expect(await house.isSimulated()).toBe(false);
  });

  it('carries the minute and the nonce: the answer is the one that the engine gives to just that prompt', async () => {
    const { minute, nonce, prompt } = challenge();
    const seed = 11;
    const { text } = await house.say(prompt, seed, 48);
    expect(text).toBe(await house.directly(prompt, seed, 48));
    for (const changed of [prompt.replace(nonce, '00000000'), prompt.replace(minute, 'noon sharp')]) {
      expect(changed).not.toBe(prompt);
      expect(await house.directly(changed, seed, 48)).not.toBe(text);
    }
  });

  it('moves the counters of the engine by the tokens that are told', async () => {
    const before = await house.counters();
    const { frames } = await house.say(challenge().prompt, 12, 40);
    const after = await house.counters();
    expect(after.tokensOut - before.tokensOut).toBe(tokensOutOf(frames));
    expect(after.tokensIn - before.tokensIn).toBeGreaterThan(10);
  });
});

describe.skipIf(noServer !== '' || noWriter !== '')(`a haiku ${noWriter}`, () => {
  let house: House;
  beforeAll(async () => {
    if ('file' in server) house = await House.open(server.file, await realpath(writer));
  }, START_MS);
  afterAll(() => house?.world[Symbol.asyncDispose]());

  it('of this minute has its words and the nonce, and the engine has counted it', { timeout: START_MS }, async () => {
    const texts: string[] = [];
    for (let nth = 0; nth < TRIES; nth += 1) {
      const { minute, nonce, prompt } = challenge();
      const before = await house.counters();
      const { text, frames } = await house.say(prompt, nth, 96);
      const after = await house.counters();
      expect(after.tokensOut - before.tokensOut).toBe(tokensOutOf(frames));
      texts.push(text);
      if (text.toLowerCase().includes(minute) && text.includes(nonce)) return;
    }
    throw new Error(`none of ${TRIES} answers has the minute and the nonce:\n${texts.join('\n---\n')}`);
  });
});
