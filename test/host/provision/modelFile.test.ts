import { execFileSync } from 'node:child_process';
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openModelFile } from '../../../src/host/provision/modelFile.js';
import { ProvisionError } from '../../../src/host/provision/provisionError.js';
import { cleanUp, temporaryFolder } from '../support.js';

let folder: string;
let root: string;
beforeEach(async () => {
  folder = await temporaryFolder();
  root = join(folder, 'models');
  await mkdir(join(root, 'deep'), { recursive: true });
  await writeFile(join(root, 'deep', 'a.gguf'), 'model');
  await writeFile(join(folder, 'secret'), 'secret');
});
afterEach(cleanUp);

async function read(path: string, files: readonly string[] = []): Promise<string> {
  const { file } = await openModelFile(path, { folders: [root], files });
  try {
    return String(await file.readFile());
  } finally {
    await file.close();
  }
}

async function codeOf(path: string): Promise<string> {
  const failure: unknown = await read(path).catch((error: unknown) => error);
  if (!(failure instanceof ProvisionError)) throw new Error(`opened, or failed otherwise: ${failure}`);
  return failure.reason.code;
}

describe('a model file that a caller names', () => {
  it('is read in its folder, through links that stay there, and where a pool is configured with it', async () => {
    await symlink('deep/a.gguf', join(root, 'link.gguf'));
    expect(await read(join(root, 'deep', 'a.gguf'))).toBe('model');
    expect(await read(join(root, 'link.gguf'))).toBe('model');
    expect(await read(join(folder, 'secret'), [join(folder, 'secret')])).toBe('secret');
    await symlink(root, join(folder, 'alias'));
    const { file, path } = await openModelFile(join(folder, 'alias', 'deep', 'a.gguf'), {
      ...{ folders: [join(folder, 'alias')], files: [] },
    });
    await file.close();
    expect(path).toBe(join(root, 'deep', 'a.gguf'));
  });

  it('is refused outside, with the same words whether it exists or not', async () => {
    await symlink(join(folder, 'secret'), join(root, 'out'));
    await symlink('/dev/zero', join(root, 'zero'));
    for (const path of ['out', 'zero', '../secret', 'deep/../../secret'])
      expect(await codeOf(join(root, path))).toBe('POLICY_REFUSED');
    for (const path of ['/etc/passwd', '/etc/no-such-file', '/dev/zero', '/proc/self/environ', `${root}-not`]) {
      expect(await codeOf(path)).toBe('POLICY_REFUSED');
    }
  });

  it('is a regular file: pipes and folders are refused at once', async () => {
    execFileSync('/usr/bin/mkfifo', [join(root, 'pipe')]);
    expect(await codeOf(join(root, 'pipe'))).toBe('MODEL_MISSING');
    expect(await codeOf(join(root, 'deep'))).toBe('MODEL_MISSING');
    expect(await codeOf(join(root, 'nothing'))).toBe('MODEL_MISSING');
    await rename(join(root, 'deep'), join(root, 'moved'));
    expect(await codeOf(join(root, 'deep', 'a.gguf'))).toBe('MODEL_MISSING');
  });
});
