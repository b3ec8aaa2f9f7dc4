import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hasImage } from '../../../src/host/provision/images.js';
import { writeProgram } from '../../support/fakeTools.js';
import { cleanUp, temporaryFolder } from '../support.js';

let folder: string;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(cleanUp);

async function ask(name: 'podman' | 'docker', script: string): Promise<boolean | string> {
  const path = join(folder, name);
  await writeProgram(path, `#!/bin/sh\n${script}\n`);
  const run = { cwd: folder, logFile: join(folder, 'log'), signal: new AbortController().signal };
  return hasImage({ name, path }, 'x@sha256:1', run).catch((error) => error.reason.code);
}

describe('an image', () => {
  it.each([
    ['exit 0', true],
    ['exit 1', false],
    ['exit 125', 'CONTAINER_RUNTIME_DOWN'],
    ['kill -9 $$', 'CONTAINER_RUNTIME_DOWN'],
  ])('podman: %s is %s', async (script, expected) => {
    expect(await ask('podman', script)).toBe(expected);
  });

  it.each([
    ['exit 0', true],
    ['[ "$1" = version ]', false],
    ['exit 1', 'CONTAINER_RUNTIME_DOWN'],
  ])('docker: %s is %s', async (script, expected) => {
    expect(await ask('docker', script)).toBe(expected);
  });
});
