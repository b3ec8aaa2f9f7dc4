import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RefusalError } from '../../src/core/errors.js';
import { ModelFiles } from '../../src/services/catalog/modelFiles.js';
import { CatalogView } from '../../src/services/catalog/view.js';
import {
  catalogVersion,
  deleteCatalogModel,
  insertCatalogModel,
  type NewCatalogModel,
  setModelState,
} from '../../src/store/catalog.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createLogger } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { openDatabase } from '../support/database.js';

let opened: Awaited<ReturnType<typeof openDatabase>>;
let modelsDir: string;
const POOLS = [{ id: 'p', modelRef: 'file:/m/a.gguf' }];
const PERMISSIVE = {
  ...{ mode: 'permissive' as const, allowedRegistries: [], requireSignature: false, requireSbom: false, caRoots: [] },
};

beforeAll(async () => {
  opened = await openDatabase();
  modelsDir = await mkdtemp(join(tmpdir(), 'llama-orch-view-'));
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
  await rm(modelsDir, { recursive: true, force: true });
});

function model(id: string, overrides: Partial<NewCatalogModel> = {}): NewCatalogModel {
  const digest = `sha256:${'a'.repeat(64)}`;
  return {
    ...{ id, digest, sourceUrl: null, tags: [], manifests: [], signatures: [], sbom: null, trustPolicy: null },
    ...overrides,
  };
}

function view(): CatalogView {
  const telemetry = new Telemetry(createLogger({ write: () => {} }), createMetrics());
  const files = new ModelFiles({ modelsDir, configDir: '/', roots: [], configured: [] });
  const served = (_id: string, modelRef: string) => ({ modelRef, digest: null, path: modelRef.slice('file:'.length) });
  return new CatalogView({ db: opened.db, telemetry, files, policy: PERMISSIVE, served });
}

function codeOf(one: CatalogView, ref: string): string | null {
  try {
    one.check(ref, POOLS);
    return null;
  } catch (error) {
    return (error as RefusalError).refusal.code;
  }
}

describe('the catalog in memory', () => {
  it('follows what another node writes, and forgets what it answered before', async () => {
    const [here, there] = [view(), view()];
    await insertCatalogModel(opened.db, model('nice', { sourceUrl: 'file:/m/a.gguf' }), 10);
    await Promise.all([here.look(), there.look()]);
    expect(here.named(POOLS)[0]?.names).toEqual(['file:/m/a.gguf', 'nice']);
    expect([codeOf(here, 'nice'), codeOf(there, POOLS[0]?.modelRef ?? '')]).toEqual([null, null]);
    await setModelState(opened.db, 'nice', 'Retired', 0);
    expect(codeOf(there, 'nice')).toBeNull();
    await Promise.all([here.look(), there.look()]);
    expect([codeOf(here, 'nice'), codeOf(there, 'file:/m/a.gguf')]).toEqual(['MODEL_DEPRECATED', 'MODEL_DEPRECATED']);
    expect(here.toDrain(POOLS, Date.now() + 60_000)).toEqual(['p']);
    await deleteCatalogModel(opened.db, 'nice');
    await there.look();
    expect(codeOf(there, 'nice')).toBeNull();
    expect(there.named(POOLS)[0]?.names).toEqual(['file:/m/a.gguf']);
  });

  it('makes nothing anew while nothing changes, and sees what has come into the cache', async () => {
    const here = view();
    await insertCatalogModel(opened.db, model('calm'), 10);
    await here.look();
    const calm = here.find('calm');
    await here.look();
    expect(here.find('calm')).toBe(calm);
    await writeFile(join(modelsDir, `sha256-${'a'.repeat(64)}`), '');
    await here.look();
    expect([calm?.paths, here.find('calm')?.paths]).toEqual([[], [expect.stringContaining('sha256-aaa')]]);
  });

  it('does not go back to what an earlier look saw', async () => {
    const here = view();
    await insertCatalogModel(opened.db, model('late'), 10);
    await here.look();
    const looks = Array.from({ length: 10 }, () => here.look());
    await setModelState(opened.db, 'late', 'Retired', null);
    await here.look();
    expect(codeOf(here, 'late')).toBe('MODEL_DEPRECATED');
    await Promise.all(looks);
    expect(codeOf(here, 'late')).toBe('MODEL_DEPRECATED');
  });

  it('holds as many models as there may be, and knows every change by its version', async () => {
    await opened.query('DELETE FROM catalog_models');
    const versions = [await catalogVersion(opened.db)];
    expect(await insertCatalogModel(opened.db, model('one'), 1)).toMatchObject({ id: 'one', state: 'Active' });
    versions.push(await catalogVersion(opened.db));
    expect(await insertCatalogModel(opened.db, model('two'), 1)).toBeNull();
    versions.push(await catalogVersion(opened.db));
    await setModelState(opened.db, 'one', 'Active', null);
    versions.push(await catalogVersion(opened.db));
    expect(versions[1]).toBe(versions[2]);
    expect(new Set(versions).size).toBe(3);
  });
});
