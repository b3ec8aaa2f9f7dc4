import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isPrivateAddress } from '../../../src/host/provision/addresses.js';
import { roomObstacle } from '../../../src/host/provision/diskSpace.js';
import { type DownloadRun, type DownloadSpec, download } from '../../../src/host/provision/download.js';
import { sweepPartFiles } from '../../../src/host/provision/partFiles.js';
import type { ProvisionError } from '../../../src/host/provision/provisionError.js';
import { type Handler, serve, startFileServer } from '../../support/fileServer.js';
import { cleanUp, later, temporaryFolder } from '../support.js';

const BODY = randomBytes(3_000_000);
const SHA = sha256(BODY);
let folder: string;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(cleanUp);

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function serverOf(handler: Handler) {
  const server = await startFileServer(handler);
  later(() => server[Symbol.asyncDispose]());
  return server;
}

const to = () => join(folder, 'deep', 'engine');
const partFile = () => join(folder, 'deep', `.engine.${SHA.slice(0, 16)}.part`);

function fetchIt(url: string, changes: Partial<DownloadSpec> = {}, run: Partial<DownloadRun> = {}): Promise<void> {
  const allowHosts = ['127.0.0.1'];
  const spec = { url, sha256: SHA, to: to(), maxBytes: 10_000_000, allowHosts, ...changes };
  return download(spec, { signal: new AbortController().signal, say: () => {}, ...run });
}

async function refusal(attempt: Promise<void>): Promise<ProvisionError['reason']> {
  const failure = await attempt.then(
    () => null,
    (error: ProvisionError) => error,
  );
  expect(failure?.reason).toBeDefined();
  expect(await stat(to()).catch(() => null)).toBeNull();
  return failure?.reason ?? { code: '', message: '', fix: null };
}

describe('a download', () => {
  it('ends as an executable file with the promised bytes, and nothing beside it', async () => {
    const server = await serverOf(serve(BODY));
    const said: string[] = [];
    await fetchIt(`${server.url}/engine`, {}, { say: (detail) => said.push(detail) });
    expect(sha256(await readFile(to()))).toBe(SHA);
    expect((await stat(to())).mode & 0o777).toBe(0o755);
    expect(await readdir(join(folder, 'deep'))).toEqual(['engine']);
    expect(said.at(-1)).toBe(`${BODY.length} of ${BODY.length} bytes`);
  });

  it('that is something else names both digests and leaves nothing', async () => {
    const other = randomBytes(1000);
    const server = await serverOf(serve(other));
    const reason = await refusal(fetchIt(server.url));
    expect(reason.code).toBe('CHECKSUM_MISMATCH');
    expect(reason.message).toContain(SHA);
    expect(reason.message).toContain(sha256(other));
    expect(await readdir(join(folder, 'deep'))).toEqual([]);
  });

  it('that is cut goes on where it stopped', async () => {
    let cuts = 0;
    const server = await serverOf((request, response) => {
      const start = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0);
      if (cuts === 2) return serve(BODY)(request, response);
      cuts += 1;
      const range = { 'content-range': `bytes ${start}-${BODY.length - 1}/${BODY.length}` };
      response.writeHead(start === 0 ? 200 : 206, { 'content-length': BODY.length - start, ...range });
      response.write(BODY.subarray(start, start + 900_000), () => response.destroy());
    });
    await fetchIt(server.url);
    expect(sha256(await readFile(to()))).toBe(SHA);
    const starts = server.requests.map((line) => Number(/bytes=(\d+)-/.exec(line)?.[1] ?? 0));
    expect(starts).toHaveLength(3);
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
    expect(starts[2]).toBeGreaterThan(0);
  });

  it('goes on with what an earlier start left, also with a server that cannot', async () => {
    for (const handler of [serve(BODY), ((_q, response) => response.end(BODY)) satisfies Handler]) {
      const server = await serverOf(handler);
      await fetchIt(server.url, {}, { signal: AbortSignal.abort(new Error('early')) }).catch(() => {});
      await writeFile(partFile(), BODY.subarray(0, 1_000_000));
      await fetchIt(server.url);
      expect(sha256(await readFile(to()))).toBe(SHA);
      expect(server.requests.at(-1)).toBe('GET / bytes=1000000-');
    }
  });

  it('throws away what was left when it turns out to be wrong', async () => {
    const server = await serverOf(serve(BODY));
    for (const left of [randomBytes(1000), randomBytes(BODY.length), BODY]) {
      await fetchIt(server.url, {}, { signal: AbortSignal.abort() }).catch(() => {});
      await writeFile(partFile(), left);
      await fetchIt(server.url);
      expect(sha256(await readFile(to()))).toBe(SHA);
    }
  });

  it('that is aborted throws the reason, keeps what it has, and leaves nothing under the final name', async () => {
    const server = await serverOf((_request, response) => {
      response.writeHead(200, { 'content-length': BODY.length });
      response.write(BODY.subarray(0, 500_000));
    });
    const controller = new AbortController();
    const why = new Error('enough');
    const say = (detail: string) => {
      if (detail.includes('bytes')) controller.abort(why);
    };
    await expect(fetchIt(server.url, {}, { signal: controller.signal, say })).rejects.toBe(why);
    expect(await stat(to()).catch(() => null)).toBeNull();
    expect((await stat(partFile())).size).toBeGreaterThan(0);
  });

  it('larger than allowed is refused, whether the server says so or not', async () => {
    const honest = await serverOf(serve(BODY));
    const silent = await serverOf((_request, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(BODY);
    });
    for (const { url } of [honest, silent]) {
      expect((await refusal(fetchIt(url, { maxBytes: 1_000_000 }))).code).toBe('DOWNLOAD_TOO_LARGE');
      expect(await readdir(join(folder, 'deep'))).toEqual([]);
    }
  });

  it('from a server that fails is tried again, and then given up', async () => {
    const server = await serverOf((_request, response) => response.writeHead(503).end());
    expect(await refusal(fetchIt(server.url))).toMatchObject({ code: 'DOWNLOAD_FAILED' });
    expect(server.requests.length).toBeGreaterThan(1);
    const missing = await serverOf((_request, response) => response.writeHead(404).end());
    expect((await refusal(fetchIt(missing.url))).message).toContain('404');
    expect(missing.requests).toHaveLength(1);
  });
});

describe('the disk', () => {
  const MIB = 1024 ** 2;
  const disk = { totalBytes: 100_000 * MIB, freeBytes: 6_000 * MIB };

  it('keeps a twentieth of it free, and 5 GiB where that is more, of a small one a quarter', () => {
    const room = (totalMib: number, freeMib: number, needMib = 0) =>
      roomObstacle('/f', { totalBytes: totalMib * MIB, freeBytes: freeMib * MIB }, needMib * MIB)?.reason.message ??
      null;
    expect([room(200_000, 10_001), room(200_000, 10_001, 2)]).toEqual([null, expect.stringContaining('are kept free')]);
    expect([room(50_000, 5_121), room(50_000, 5_119)]).toEqual([
      null,
      expect.stringContaining('5.0 GiB are kept free'),
    ]);
    expect([room(4_000, 1_001), room(4_000, 999)]).toEqual([
      null,
      expect.stringContaining('and 1.0 GiB are kept free'),
    ]);
  });

  it('is asked before the first byte, whether the server tells the length or not', async () => {
    const honest = await serverOf(serve(BODY));
    const silent = await serverOf((_request, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(BODY);
    });
    // Room for less than the honest one says, and for none at all.
    const left = { ...disk, freeBytes: 5_120 * MIB + BODY.length - 1 };
    const full = { ...disk, freeBytes: 5_120 * MIB - 1 };
    expect(await refusal(fetchIt(honest.url, {}, { diskSpace: async () => left }))).toMatchObject({
      code: 'DISK_FULL',
    });
    expect(await refusal(fetchIt(silent.url, {}, { diskSpace: async () => full }))).toMatchObject({
      code: 'DISK_FULL',
    });
    expect((await stat(partFile())).size).toBe(0);
  });

  it('is asked again while bytes come, and what has come stays', async () => {
    const large = Buffer.alloc(66 * MIB);
    const server = await serverOf((_request, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(large);
    });
    const answers = [disk, { ...disk, freeBytes: 1 }];
    const diskSpace = async () => answers.shift() ?? disk;
    const changes = { sha256: sha256(large), maxBytes: 100 * MIB };
    expect(await refusal(fetchIt(server.url, changes, { diskSpace }))).toMatchObject({ code: 'DISK_FULL' });
    expect(answers).toEqual([]);
    const [part = ''] = await readdir(join(folder, 'deep'));
    expect((await stat(join(folder, 'deep', part))).size).toBeGreaterThanOrEqual(64 * MIB);
  });

  it('is freed of what nobody has gone on with for a week', async () => {
    const nowMs = Date.now();
    const aged = async (name: string, days: number) => {
      await writeFile(join(folder, name), 'x');
      await utimes(join(folder, name), (nowMs - days * 86_400_000) / 1000, (nowMs - days * 86_400_000) / 1000);
    };
    await aged('.old.part', 8);
    await aged('.fresh.part', 6);
    await aged('old.part', 8);
    await aged('.old', 8);
    await sweepPartFiles(folder, nowMs);
    expect((await readdir(folder)).sort()).toEqual(['.fresh.part', '.old', 'old.part']);
    await sweepPartFiles(join(folder, 'nowhere'), nowMs);
  });
});

describe('a signed URL', () => {
  it('is not told by what went wrong with it', async () => {
    const server = await serverOf((request, response) => {
      if (request.url?.startsWith('/missing')) response.writeHead(404).end();
      else if (request.url?.startsWith('/round')) response.writeHead(302, { location: request.url }).end();
      else serve(BODY)(request, response);
    });
    const lookup = () => Promise.reject(new Error('nobody knows'));
    const signed = (path: string) => `${server.url}/${path}?X-Amz-Signature=s3cret`;
    const reasons = [
      await refusal(fetchIt(signed('missing'))),
      await refusal(fetchIt(signed('round'))),
      await refusal(fetchIt(signed('large'), { maxBytes: 1000 })),
      await refusal(fetchIt(signed('other'), { sha256: '0'.repeat(64) })),
      await refusal(
        fetchIt('https://a.example.test/away?X-Amz-Signature=s3cret', { allowHosts: ['a.example.test'] }, { lookup }),
      ),
    ];
    expect(reasons.map(({ code }) => code)).toEqual([
      ...['DOWNLOAD_FAILED', 'DOWNLOAD_FAILED', 'DOWNLOAD_TOO_LARGE', 'CHECKSUM_MISMATCH', 'DOWNLOAD_FAILED'],
    ]);
    for (const { message } of reasons) {
      expect(message).toMatch(/https?:\/\/[\w.:]+\/\w+\?…/);
      expect(message).not.toContain('s3cret');
    }
  });
});

describe('where a download may go', () => {
  it('opens no socket to a host that is not listed', async () => {
    const server = await serverOf(serve(BODY));
    expect(await refusal(fetchIt(server.url, { allowHosts: [] }))).toMatchObject({ code: 'POLICY_REFUSED' });
    expect(server.connections()).toBe(0);
  });

  it('follows redirects to listed hosts, three at most', async () => {
    const server = await serverOf((request, response) => {
      const left = Number(request.url?.slice(1));
      if (left === 0) serve(BODY)(request, response);
      else response.writeHead(302, { location: `/${left - 1}` }).end();
    });
    await fetchIt(`${server.url}/3`);
    expect(sha256(await readFile(to()))).toBe(SHA);
    const far = { to: join(folder, 'far') };
    await expect(fetchIt(`${server.url}/4`, far)).rejects.toThrow('redirects more than 3 times');
  });

  it.each([
    'http://127.0.0.2:1/x',
    'http://169.254.169.254/latest/meta-data',
    'http://[::1]:1/',
    'https://10.0.0.1/',
    'file:///etc/passwd',
    'http://2130706434/',
  ])('does not follow a redirect to %s', async (location) => {
    const server = await serverOf((_request, response) => response.writeHead(302, { location }).end());
    expect(await refusal(fetchIt(server.url))).toMatchObject({ code: 'POLICY_REFUSED' });
    expect(server.requests).toHaveLength(1);
  });

  it('does not connect to a listed name that leads to a private address', async () => {
    const server = await serverOf(serve(BODY));
    const { port } = new URL(server.url);
    const lookup = async () => [{ address: '127.0.0.1', family: 4 }];
    const allowHosts = ['*.example.test'];
    const reason = await refusal(fetchIt(`https://dl.example.test:${port}/`, { allowHosts }, { lookup }));
    expect(reason).toMatchObject({ code: 'POLICY_REFUSED' });
    expect(reason.message).toContain('127.0.0.1');
    expect(server.connections()).toBe(0);
  });

  it('knows private addresses in every spelling', () => {
    for (const address of [
      '10.1.2.3',
      '172.31.0.1',
      '169.254.169.254',
      '100.64.0.1',
      '::1',
      'fd00::1',
      'fe80::1',
      'fec0::1',
    ])
      expect(isPrivateAddress(address), address).toBe(true);
    for (const address of [
      '::ffff:10.0.0.1',
      '::ffff:7f00:1',
      '64:ff9b::a00:1',
      '::7f00:1',
      '0.0.0.0',
      '224.0.0.1',
      'x',
    ])
      expect(isPrivateAddress(address), address).toBe(true);
    for (const address of ['1.1.1.1', '140.82.121.4', '172.32.0.1', '2606:4700::1111', '::ffff:1.1.1.1'])
      expect(isPrivateAddress(address), address).toBe(false);
  });
});
