/**
 * Downloads of engine programs and models: to a file beside the final one, which takes its name only when it is complete, has the
 * promised digest and is on the disk. What a cut connection left is gone on with.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Agent, type Dispatcher } from 'undici';
import { type BackoffPolicy, retryDelayMs } from '../../core/backoff.js';
import { egressRefusal, hostOf, isListedAddress } from '../../core/egress.js';
import { shownRef } from '../../core/shownRef.js';
import { formatBytes } from '../../core/vram.js';
import { delay, within } from '../../runtime/wait.js';
import { errnoOf, messageOf } from '../startupError.js';
import { syncFolder } from '../syncFolder.js';
import { type Lookup, lookUp, publicLookup } from './addresses.js';
import { type DiskSpace, diskSpace, roomObstacle } from './diskSpace.js';
import { hashInto } from './fileDigest.js';
import { partFile } from './partFiles.js';
import { checksumMismatch, ProvisionError } from './provisionError.js';

const MAX_REDIRECTS = 3;
const CONNECT_TIMEOUT_MS = 10_000;
const SILENCE_TIMEOUT_MS = 30_000;
const DEADLINE_MS = 6 * 3_600_000;
const PROGRESS_EVERY_MS = 500;
/** Others write to the disk meanwhile, and a server need not say how much is to come. */
const ROOM_ASKED_EVERY_BYTES = 64 * 1024 ** 2;
/** Tries in a row that bring nothing; one that brings bytes starts the count anew. */
const RETRY: BackoffPolicy = { baseMs: 250, capMs: 10_000, attempts: 5 };
const MAX_TRIES = 100;

export interface DownloadSpec {
  readonly url: string;
  /** Hex. */
  readonly sha256: string;
  /** Absolute path; its folder is made. */
  readonly to: string;
  readonly maxBytes: number;
  readonly allowHosts: readonly string[];
  /** Permissions of the file; by default those of a program. */
  readonly mode?: number;
}

export interface DownloadRun {
  readonly signal: AbortSignal;
  readonly say: (detail: string) => void;
  /** How far it is; `total` is null while the server does not tell. */
  readonly onBytes?: (received: number, total: number | null) => void;
  /** Names are looked up by this; the system's own by default. */
  readonly lookup?: Lookup;
  /** Of the disk that a folder is on; as the system tells by default. */
  readonly diskSpace?: (folder: string) => Promise<DiskSpace>;
}

/** Worth another try: the connection, or the server for now. */
class Interrupted extends Error {}

/** Rejects with a ProvisionError, or with the signal's reason; then nothing stands under the final name. */
export async function download(spec: DownloadSpec, run: DownloadRun): Promise<void> {
  const folder = dirname(spec.to);
  await mkdir(folder, { recursive: true });
  const part = partFile(spec.to, spec.sha256);
  using deadline = within(DEADLINE_MS, run.signal);
  await using agent = openAgent(spec, run.lookup ?? lookUp);
  try {
    const transfer = new Transfer(spec, part, { ...run, signal: deadline.signal }, agent.dispatcher);
    await transfer.complete();
    await rename(part, spec.to);
    await syncFolder(folder);
  } catch (error) {
    run.signal.throwIfAborted();
    throw asProvisionError(error, shownRef(spec.url));
  }
}

function openAgent(spec: DownloadSpec, lookup: Lookup): AsyncDisposable & { readonly dispatcher: DispatcherFor } {
  const limits = { headersTimeout: SILENCE_TIMEOUT_MS, bodyTimeout: SILENCE_TIMEOUT_MS };
  const guarded = new Agent({ ...limits, connect: { timeout: CONNECT_TIMEOUT_MS, lookup: publicLookup(lookup) } });
  // For addresses that the operator has listed as such: nothing is looked up, or the name means this machine.
  const listed = new Agent({ ...limits, connect: { timeout: CONNECT_TIMEOUT_MS } });
  return {
    dispatcher: (url) => {
      return isListedAddress(url, spec.allowHosts) ? listed : guarded;
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all([guarded.destroy(), listed.destroy()]);
    },
  };
}

/** The way to a URL that policy allows. */
type DispatcherFor = (url: URL) => Dispatcher;

class Transfer {
  readonly #spec: DownloadSpec;
  readonly #part: string;
  readonly #run: DownloadRun;
  readonly #dispatcher: DispatcherFor;
  #hash: Hash = createHash('sha256');
  #received = 0;
  #total: number | null = null;
  #lastSaidMs = Number.NEGATIVE_INFINITY;
  /** When so much has come, the disk is asked again. */
  #askRoomAt = 0;

  constructor(spec: DownloadSpec, part: string, run: DownloadRun, dispatcher: DispatcherFor) {
    this.#spec = spec;
    this.#part = part;
    this.#run = run;
    this.#dispatcher = dispatcher;
  }

  /** Until the part file is whole and verified. */
  async complete(): Promise<void> {
    const file = await open(this.#part, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    try {
      const resumed = await this.#takeUp(file);
      await this.#fetchAll(file);
      if (resumed && !this.#matches()) {
        // The old bytes may be the wrong ones.
        await this.#startOver(file);
        await this.#fetchAll(file);
      }
      if (!this.#matches()) {
        await rm(this.#part, { force: true });
        throw checksumMismatch(this.#shownUrl, this.#spec.sha256, this.#digest());
      }
      await file.chmod(this.#spec.mode ?? 0o755);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** As messages may have it: they are kept, and shown to others. */
  get #shownUrl(): string {
    return shownRef(this.#spec.url);
  }

  #digest(): string {
    return this.#hash.copy().digest('hex');
  }

  #matches(): boolean {
    return this.#digest() === this.#spec.sha256;
  }

  async #takeUp(file: FileHandle): Promise<boolean> {
    const { size } = await file.stat();
    if (size > this.#spec.maxBytes) await file.truncate(0);
    else if (size > 0) {
      const { signal } = this.#run;
      await hashInto(this.#hash, file, size, { signal, onBytes: () => {} });
      this.#received = size;
    }
    return this.#received > 0;
  }

  async #startOver(file: FileHandle): Promise<void> {
    await file.truncate(0);
    this.#hash = createHash('sha256');
    this.#received = 0;
    this.#total = null;
  }

  async #fetchAll(file: FileHandle): Promise<void> {
    let inVain = 0;
    for (let tries = 1; !(this.#received > 0 && this.#matches()); tries += 1) {
      const before = this.#received;
      try {
        await this.#fetchRest(file);
        return;
      } catch (error) {
        this.#run.signal.throwIfAborted();
        if (!(error instanceof Interrupted) || tries >= MAX_TRIES) throw error;
        inVain = this.#received > before ? 1 : inVain + 1;
        const pauseMs = retryDelayMs(RETRY, inVain, Math.random());
        if (pauseMs === null) throw error;
        this.#run.say(`${error.message}; trying again`);
        await delay(pauseMs, this.#run.signal);
        this.#run.signal.throwIfAborted();
      }
    }
  }

  async #fetchRest(file: FileHandle): Promise<void> {
    const answer = await this.#request(new URL(this.#spec.url), MAX_REDIRECTS);
    const { statusCode, headers, body } = answer;
    try {
      if (statusCode === 416 || (statusCode === 206 && rangeStart(headers) !== this.#received)) {
        await this.#startOver(file);
        throw new Interrupted('the server cannot go on where the download stopped');
      }
      if (statusCode !== 200 && statusCode !== 206) throw badStatus(statusCode, this.#shownUrl);
      if (statusCode === 200 && this.#received > 0) await this.#startOver(file);
      await this.#expect(Number(headers['content-length'] ?? Number.NaN));
      for await (const chunk of body) await this.#take(file, chunk);
    } catch (error) {
      throw interruption(error);
    } finally {
      body.on('error', () => {}).destroy();
    }
    if (this.#total !== null && this.#received < this.#total) throw new Interrupted('the connection was cut');
  }

  async #request(url: URL, redirectsLeft: number): Promise<Dispatcher.ResponseData> {
    const refusal = egressRefusal(url, this.#spec.allowHosts);
    if (refusal !== null) throw new ProvisionError(refusal.code, refusal.message, refusal.fix ?? '');
    const answer = await this.#dispatcher(url)
      .request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: 'GET',
        signal: this.#run.signal,
        headers: {
          'user-agent': 'llama-orch',
          'accept-encoding': 'identity',
          ...(this.#received > 0 && { range: `bytes=${this.#received}-` }),
        },
      })
      .catch((error: unknown) => {
        if (errnoOf(error) === 'EPRIVATE') throw privateRefusal(url, messageOf(error));
        throw interruption(error);
      });
    const { location } = answer.headers;
    if (![301, 302, 303, 307, 308].includes(answer.statusCode) || typeof location !== 'string') return answer;
    answer.body.on('error', () => {}).destroy();
    if (redirectsLeft === 0 || !URL.canParse(location, url)) {
      const message = `${this.#shownUrl} redirects ${redirectsLeft === 0 ? `more than ${MAX_REDIRECTS} times` : 'nowhere'}`;
      throw new ProvisionError('DOWNLOAD_FAILED', message, 'Give the URL of the file itself.');
    }
    return this.#request(new URL(location, url), redirectsLeft - 1);
  }

  /** Refuses what is too large before it is read. `length` is what is still to come, or NaN. */
  async #expect(length: number): Promise<void> {
    this.#total = Number.isSafeInteger(length) ? this.#received + length : null;
    if ((this.#total ?? 0) > this.#spec.maxBytes) throw await this.#tooLarge();
    await this.#expectRoom(Number.isSafeInteger(length) ? length : 0);
  }

  async #expectRoom(bytes: number): Promise<void> {
    const folder = dirname(this.#part);
    const obstacle = roomObstacle(folder, await (this.#run.diskSpace ?? diskSpace)(folder), bytes);
    if (obstacle !== null) throw obstacle;
    this.#askRoomAt = this.#received + ROOM_ASKED_EVERY_BYTES;
  }

  async #take(file: FileHandle, chunk: Buffer): Promise<void> {
    if (this.#received + chunk.length > this.#spec.maxBytes) throw await this.#tooLarge();
    if (this.#received >= this.#askRoomAt) await this.#expectRoom(chunk.length);
    for (let written = 0; written < chunk.length; ) {
      const { bytesWritten } = await file.write(chunk, written, chunk.length - written, this.#received + written);
      written += bytesWritten;
    }
    this.#hash.update(chunk);
    this.#received += chunk.length;
    this.#run.onBytes?.(this.#received, this.#total);
    const nowMs = performance.now();
    if (nowMs - this.#lastSaidMs < PROGRESS_EVERY_MS && this.#received !== this.#total) return;
    this.#lastSaidMs = nowMs;
    this.#run.say(`${this.#received} of ${this.#total ?? 'an unknown number of'} bytes`);
  }

  async #tooLarge(): Promise<ProvisionError> {
    await rm(this.#part, { force: true });
    const message = `${this.#shownUrl} is larger than ${formatBytes(this.#spec.maxBytes)}, the most that is downloaded`;
    return new ProvisionError('DOWNLOAD_TOO_LARGE', message, 'Check the URL; bring a file that large here by hand.');
  }
}

function rangeStart(headers: Dispatcher.ResponseData['headers']): number {
  const match = /^bytes (\d+)-/.exec(String(headers['content-range'] ?? ''));
  return Number(match?.[1] ?? Number.NaN);
}

function badStatus(status: number, url: string): Error {
  if (status >= 500 || status === 408 || status === 429) return new Interrupted(`the server answers ${status}`);
  const message = `${url} answers ${status}`;
  return new ProvisionError('DOWNLOAD_FAILED', message, 'Check the URL: the server does not give this file to us.');
}

function privateRefusal(url: URL, why: string): ProvisionError {
  const fix = 'Where this host is meant, list its address itself in network.allow_hosts and use that in the URL.';
  return new ProvisionError('POLICY_REFUSED', `${hostOf(url)} may not be reached: ${why}`, fix);
}

/** Errors of the connection become Interrupted; all others stay. */
function interruption(error: unknown): unknown {
  const code = errnoOf(error) ?? '';
  const isConnection =
    code.startsWith('UND_ERR_') || /^E(?:CONN|PIPE|HOST|NET|TIMEDOUT|AI_)/.test(code) || code === 'ENOTFOUND';
  if (!isConnection || code === 'UND_ERR_ABORTED') return error;
  return new Interrupted(`the connection failed (${code})`, { cause: error });
}

function asProvisionError(error: unknown, url: string): ProvisionError {
  if (error instanceof ProvisionError) return error;
  if (errnoOf(error) === 'ENOSPC') {
    return new ProvisionError('DISK_FULL', 'the disk is full', 'Free space on it, or choose another folder.');
  }
  const why = error instanceof DOMException && error.name === 'TimeoutError' ? 'it took too long' : messageOf(error);
  const fix = 'Check the network and the URL. What was downloaded is kept and gone on with.';
  return new ProvisionError('DOWNLOAD_FAILED', `${url} could not be downloaded: ${why}`, fix, { cause: error });
}
