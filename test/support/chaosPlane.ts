/** The control plane of a chaos run as its users and its operator see it, over all of its lives. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { delay } from '../../src/runtime/wait.js';
import { gql } from './graphql.js';
import type { WatchedPlane } from './invariantFloors.js';
import { post } from './rest.js';
import { type ServerProcess, startServer } from './server.js';

const INSIST_MS = 60_000;
const AGAIN_MS = 150;

export type Answer = 'accepted' | 'refused' | 'no answer';

export class Plane {
  readonly #home: string;
  readonly #configFile: string;
  #server: ServerProcess;
  /** Output of the lives before this one. */
  #past = '';
  /** Whether its death was our doing. */
  #expectedDown = false;
  lives = 1;

  private constructor(home: string, configFile: string, server: ServerProcess) {
    this.#home = home;
    this.#configFile = configFile;
    this.#server = server;
  }

  static async start(home: string, configFile: string): Promise<Plane> {
    return new Plane(home, configFile, await startServer(home, { args: ['--config', configFile] }));
  }

  get url(): string {
    return this.#server.url;
  }

  get pid(): number {
    return this.#server.pid;
  }

  get output(): string {
    return this.#past + this.#server.output();
  }

  watched(): WatchedPlane {
    return {
      what: 'the control plane',
      pid: () => this.pid,
      url: () => this.url,
      output: () => this.output,
      sinceMs: () => this.#server.startedMs,
    };
  }

  /** It was not us, and it does not run. */
  get hasDied(): boolean {
    if (this.#expectedDown) return false;
    try {
      return !process.kill(this.pid, 0);
    } catch {
      return true;
    }
  }

  /** Ends it and starts it again; resolves once it is up. */
  async restart(signal: 'SIGKILL' | 'SIGTERM', beforeStart: () => Promise<void> = async () => {}): Promise<void> {
    this.#expectedDown = true;
    this.#server.signal(signal);
    const exit = await this.#server.exited;
    if (signal === 'SIGTERM' && exit.code !== 0) throw new Error(`it ended with ${exit.code}:\n${this.output}`);
    await beforeStart();
    this.#past += this.#server.output();
    this.#server = await startServer(this.#home, { args: ['--config', this.#configFile] });
    this.lives += 1;
    this.#expectedDown = false;
  }

  /** A start that is killed so long after it began. */
  async killedStart(afterMs: number): Promise<void> {
    const { PATH = '', HOME = '' } = process.env;
    const child = spawn(process.execPath, ['bin/llama-orch.js', 'up', '--config', this.#configFile], {
      env: { PATH, HOME, LLAMA_ORCH_HOME: this.#home, ORCHD_ADDR: '127.0.0.1:0' },
      stdio: 'ignore',
    });
    const over = once(child, 'exit');
    await delay(afterMs);
    child.kill('SIGKILL');
    await over;
    this.lives += 1;
  }

  async pause(ms: number): Promise<void> {
    this.#server.signal('SIGSTOP');
    await delay(ms);
    this.#server.signal('SIGCONT');
  }

  /** As Ctrl-C does. @returns the exit code */
  async end(): Promise<number | null> {
    this.#expectedDown = true;
    this.#server.signal('SIGINT');
    return (await this.#server.exited).code;
  }

  async cancel(taskId: string): Promise<Answer> {
    const answer = await post(this.url, `/v1/tasks/${taskId}/cancel`, {}).catch(() => null);
    await answer?.arrayBuffer().catch(() => null);
    return answer === null ? 'no answer' : answer.ok ? 'accepted' : 'refused';
  }

  drain(pool: string, deadlineMs: number): Promise<Answer> {
    return this.#operate('drainPool', { pool, deadlineMs });
  }

  restartReplica(replica: string): Promise<Answer> {
    return this.#operate('restartReplica', { replica });
  }

  /** Asks until it is taken: another operation may be under way. @throws when that lasts. */
  async resume(pool: string): Promise<void> {
    const deadline = performance.now() + INSIST_MS;
    let last = '';
    while (performance.now() < deadline) {
      if ((await this.#operate('resumePool', { pool }, (why) => (last = why))) === 'accepted') return;
      await delay(AGAIN_MS);
    }
    throw new Error(`pool ${pool} could not be resumed for ${INSIST_MS} ms: ${last}`);
  }

  async #operate(
    mutation: 'drainPool' | 'resumePool' | 'restartReplica',
    input: Record<string, unknown>,
    onRefusal: (why: string) => void = () => {},
  ): Promise<Answer> {
    const type = `${mutation[0]?.toUpperCase()}${mutation.slice(1)}Input!`;
    const document = `mutation($input: ${type}) { ${mutation}(input: $input) { __typename ... on Refusal { message } } }`;
    const answer = await gql(this.url, document, { input }).catch(() => null);
    const result: { __typename: string; message?: string } | undefined = answer?.data?.[mutation];
    if (result?.__typename === 'OperationAccepted') return 'accepted';
    onRefusal(result?.message ?? JSON.stringify(answer?.errors ?? 'no answer'));
    return result === undefined ? 'no answer' : 'refused';
  }
}
