import { appendFileSync, readdirSync, readlinkSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { openLog, trimLog } from '../../src/host/logFile.js';
import { type LogLine, type LogReader, LogReaders, MAX_FOLLOWERS, readLastLines } from '../../src/host/logFollow.js';
import { MAX_LINE_BYTES } from '../../src/host/logLines.js';
import { cleanUp, later, temporaryFolder } from './support.js';

afterEach(cleanUp);

const asIs = (text: string) => text;
const closed: LogLine = { number: null, atMs: null, text: 'closed' };

function makeReaders(mask: (text: string) => string = asIs): LogReaders {
  const readers = new LogReaders({ mask, nowMs: () => 1_000 });
  later(() => readers.stop());
  return readers;
}

async function newLog(): Promise<string> {
  return join(await temporaryFolder(), 'engine.log');
}

function follow(readers: LogReaders, file: string, last = 100): LogReader {
  const reader = readers.follow(file, last);
  if (reader === null) throw new Error('refused');
  later(() => reader.close());
  return reader;
}

/** Lines until `isLast` says so; fails after 10 s, then with what came. */
async function linesUntil(reader: LogReader, isLast: (line: LogLine) => boolean): Promise<LogLine[]> {
  const lines: LogLine[] = [];
  const timer = setTimeout(() => reader.close(), 10_000);
  try {
    for (;;) {
      for (const line of (await reader.next()) ?? [closed]) {
        lines.push(line);
        if (isLast(line)) return lines;
        if (line === closed) throw new Error(`it did not come: ${JSON.stringify(lines.slice(-5))}`);
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

async function textsUntil(reader: LogReader, last: string): Promise<string[]> {
  return (await linesUntil(reader, ({ text }) => text === last)).map(({ text }) => text);
}

function openCount(file: string): number {
  const target = (fd: string) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).replace(' (deleted)', '');
    } catch {
      return '';
    }
  };
  return readdirSync('/proc/self/fd').filter((fd) => target(fd) === file).length;
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => `line ${from + index}`);
const lines = (texts: readonly string[]) => texts.map((text) => `${text}\n`).join('');

describe('the last lines', () => {
  test('are as many as asked for, an unfinished one included', async () => {
    const file = await newLog();
    expect(await readLastLines(file, 5, asIs)).toEqual([]);
    writeFileSync(file, `${lines(numbers(0, 50))}unfinished`);
    const texts = (await readLastLines(file, 3, asIs)).map(({ text }) => text);
    expect(texts).toEqual(['line 48', 'line 49', 'unfinished']);
    expect((await readLastLines(file, 1000, asIs)).map(({ number }) => number)).toEqual(
      Array.from({ length: 51 }, (_, index) => index + 1),
    );
    expect(await readLastLines(file, 0, asIs)).toEqual([]);
    expect(openCount(file)).toBe(0);
  });

  test('begin with a whole line when the log is larger than what is looked at', async () => {
    const file = await newLog();
    const wide = Array.from({ length: 400 }, (_, index) => `${index} `.padEnd(7_000, 'x'));
    writeFileSync(file, lines(wide));
    const texts = (await readLastLines(file, 1000, asIs)).map(({ text }) => text);
    expect(texts.length).toBeGreaterThan(100);
    expect(texts).toEqual(wide.slice(-texts.length));
  });

  test('go back into the part that was moved aside', async () => {
    const file = await newLog();
    writeFileSync(file, `${lines(numbers(0, 10))}half`);
    trimLog(file, 10);
    appendFileSync(file, ` a line\n${lines(numbers(10, 12))}`);
    const texts = (await readLastLines(file, 5, asIs)).map(({ text }) => text);
    expect(texts).toEqual(['line 8', 'line 9', 'half a line', 'line 10', 'line 11']);
  });

  test('are cut, masked and harmless', async () => {
    const file = await newLog();
    const long = `${'x'.repeat(MAX_LINE_BYTES - 1)}é and more`;
    const colour = '\u001b[31mred\u001b[0m\u0007\u001b]0;title\u0007a\tb\r';
    writeFileSync(file, Buffer.concat([Buffer.from(`${long}\n${colour}\nsecret\n`), Buffer.alloc(5_000, 0xff)]));
    const shown = await readLastLines(file, 10, (text) => text.replace('secret', '***'));
    const [cut, plain, masked, broken] = shown.map(({ text }) => text);
    expect(cut).toBe(`${'x'.repeat(MAX_LINE_BYTES - 1)} [10 bytes cut]`);
    expect(plain).toBe('red a b');
    expect(masked).toBe('***');
    expect(broken).toMatch(/^\ufffd+ \[\d+ bytes cut\]$/);
    expect(Buffer.byteLength(broken ?? '')).toBeLessThan(MAX_LINE_BYTES + 30);
  });
});

describe('following a log', () => {
  test('begins with the last lines and leaves out and repeats none, whenever one joins', async () => {
    const file = await newLog();
    // Fewer than may wait: none is dropped, however slowly they are taken.
    const all = numbers(0, 2_000);
    writeFileSync(file, lines(all.slice(0, 500)));
    const readers = makeReaders();
    const reads: Promise<string[]>[] = [];
    for (let at = 500; at < all.length; at += 100) {
      reads.push(textsUntil(follow(readers, file, 50), 'line 1999'));
      // In two writes, the first of which ends within a line.
      const part = lines(all.slice(at, at + 100));
      appendFileSync(file, part.slice(0, 333));
      await new Promise<void>((resolve) => setImmediate(resolve));
      appendFileSync(file, part.slice(333));
    }
    for (const texts of await Promise.all(reads)) {
      expect(texts.length).toBeGreaterThanOrEqual(50);
      expect(texts).toEqual(all.slice(-texts.length));
    }
  });

  test('waits for a file that does not exist yet, and tells old lines from new ones', async () => {
    const file = await newLog();
    const readers = makeReaders();
    const early = follow(readers, file);
    const first = linesUntil(early, () => true);
    // As long as the reader takes to find nothing.
    expect(await readLastLines(file, 1, asIs)).toEqual([]);
    writeFileSync(file, 'hello\n');
    expect(await first).toMatchObject([{ number: 1, text: 'hello' }]);
    appendFileSync(file, 'more\n');
    expect(await linesUntil(early, () => true)).toEqual([{ number: 2, atMs: 1_000, text: 'more' }]);
    const other = makeReaders();
    expect(await linesUntil(follow(other, file, 1), () => true)).toEqual([{ number: 1, atMs: null, text: 'more' }]);
    const none = linesUntil(follow(other, file, 0), () => true);
    appendFileSync(file, 'new\n');
    expect(await none).toEqual([{ number: 1, atMs: 1_000, text: 'new' }]);
  });

  test('goes on when the log is trimmed, with the lines just before it and a line across it', async () => {
    const file = await newLog();
    writeFileSync(file, 'start\n');
    const reader = follow(makeReaders(), file);
    await textsUntil(reader, 'start');
    for (let round = 0; round < 8; round += 1) {
      appendFileSync(file, `${lines(numbers(0, 200))}one li`);
      trimLog(file, 100);
      appendFileSync(file, `ne\n${lines(numbers(0, 20 + round * 20))}end ${round}\n`);
      expect(await textsUntil(reader, `end ${round}`)).toEqual([
        ...numbers(0, 200),
        'one line',
        ...numbers(0, 20 + round * 20),
        `end ${round}`,
      ]);
    }
    // A copy that somebody makes beside it is no trimming.
    writeFileSync(`${file}.1`, 'x'.repeat(1_000_000));
    writeFileSync(`${file}.1`, '');
    appendFileSync(file, 'after\n');
    expect(await textsUntil(reader, 'after')).toEqual(['after']);
  });

  test('goes on when the log is emptied, replaced, or removed and written anew', async () => {
    const file = await newLog();
    writeFileSync(file, lines(numbers(0, 10)));
    const reader = follow(makeReaders(), file, 1);
    expect(await textsUntil(reader, 'line 9')).toEqual(['line 9']);
    truncateSync(file, 0);
    appendFileSync(file, 'emptied\n');
    expect(await textsUntil(reader, 'emptied')).toEqual(['emptied']);
    appendFileSync(file, 'the last of the old one, unfinished');
    renameSync(file, `${file}.1`);
    writeFileSync(file, 'replaced\n');
    expect(await textsUntil(reader, 'replaced')).toEqual(['the last of the old one, unfinished', 'replaced']);
    rmSync(file);
    writeFileSync(file, 'anew\n');
    expect(await textsUntil(reader, 'anew')).toEqual(['anew']);
    reader.close();
    await expect.poll(() => openCount(file) + openCount(`${file}.1`)).toBe(0);
  });

  test('shows an unfinished line after a while, and the next start on a line of its own', async () => {
    const file = await newLog();
    const reader = follow(makeReaders(), file);
    writeFileSync(file, 'killed within a li');
    expect(await textsUntil(reader, 'killed within a li')).toHaveLength(1);
    openLog(file);
    appendFileSync(file, 'started\n');
    expect(await textsUntil(reader, 'started')).toEqual(['started']);
  });

  test('drops the oldest for a slow reader and says how many', async () => {
    const file = await newLog();
    writeFileSync(file, 'start\n');
    const readers = makeReaders();
    const slow = follow(readers, file);
    const quick = follow(readers, file, 1);
    const read = textsUntil(quick, 'end');
    await textsUntil(slow, 'start');
    const padding = 'x'.repeat(1_000);
    for (let at = 0; at < 20_000; at += 1_000) {
      appendFileSync(file, lines(numbers(at, at + 1_000).map((text) => text + padding)));
    }
    appendFileSync(file, 'end\n');
    // The quick one has had the end, so the slow one has it waiting.
    await read;
    const rest = await linesUntil(slow, ({ text }) => text === 'end');
    const [note, first] = rest;
    const dropped = Number(/^\[(\d+) lines were dropped here/.exec(note?.text ?? '')?.[1]);
    expect(note?.number).toBeNull();
    expect(first?.number).toBe(dropped + 2);
    expect(first?.text).toBe(`line ${dropped}${padding}`);
    expect(rest.slice(1)).toHaveLength(20_001 - dropped);
    expect(rest.length).toBeLessThan(2_100);
  });
});

describe('readers of one log', () => {
  test('share one descriptor up to the limit, and leave none behind', async () => {
    const file = await newLog();
    writeFileSync(file, 'here\n');
    const readers = makeReaders();
    const all = Array.from({ length: MAX_FOLLOWERS }, () => follow(readers, file));
    for (const reader of all) expect(await textsUntil(reader, 'here')).toEqual(['here']);
    expect(openCount(file)).toBe(1);
    expect(readers.follow(file, 1)).toBeNull();
    all[0]?.close();
    expect(await textsUntil(follow(readers, file), 'here')).toEqual(['here']);
    const parked = all[1]?.next();
    for (const reader of all) reader.close();
    expect(await parked).toBeNull();
    expect(openCount(file)).toBe(1);
    await readers.stop();
    expect(openCount(file)).toBe(0);
  });

  test('end when the last one closes, also in the moment in which it opens', async () => {
    const file = await newLog();
    writeFileSync(file, 'here\n');
    const readers = makeReaders();
    for (let round = 0; round < 20; round += 1) follow(readers, file).close();
    const reader = follow(readers, file);
    expect(await textsUntil(reader, 'here')).toEqual(['here']);
    await expect.poll(() => openCount(file)).toBe(1);
    reader.close();
    expect(await reader.next()).toBeNull();
    await expect.poll(() => openCount(file)).toBe(0);
  });

  test('are told when the log cannot be read, and the next one tries again', async () => {
    const file = await newLog();
    await mkdir(file);
    const readers = makeReaders();
    const both = [follow(readers, file), follow(readers, file)];
    for (const reader of both) await expect(reader.next()).rejects.toMatchObject({ code: 'EISDIR' });
    rmSync(file, { recursive: true });
    writeFileSync(file, 'mended\n');
    expect(await textsUntil(follow(readers, file), 'mended')).toEqual(['mended']);
    await expect(readLastLines(join(file, 'below'), 1, asIs)).rejects.toMatchObject({ code: 'ENOTDIR' });
  });
});
