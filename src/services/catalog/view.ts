/**
 * The catalog in memory: what admission asks of it with every task. Read anew once a second, so that a change made on
 * another node counts here by then; one made here counts at once.
 */
import { type CatalogModelRules, poolsToDrain, refRefusal, type ServingPool } from '../../core/catalog.js';
import { type Refusal, RefusalError } from '../../core/errors.js';
import { canonicalRef, isServedAs, namesOf, type ServedModel } from '../../core/modelRef.js';
import type { TrustPolicy } from '../../core/trust.js';
import { Reconciler } from '../../runtime/reconciler.js';
import { type CatalogRulesRow, catalogVersion, listCatalogRules } from '../../store/catalog.js';
import type { Database } from '../../store/database.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { ModelFiles } from './modelFiles.js';

const LOOK_EVERY_MS = 1_000;
const MAX_REMEMBERED = 1_000;

export interface CatalogViewDeps {
  readonly db: Database;
  readonly telemetry: Telemetry;
  readonly files: ModelFiles;
  readonly policy: TrustPolicy;
  /** What is known here of a model that a pool serves. */
  readonly served: (poolId: string, modelRef: string) => ServedModel;
}

/** A pool as its fleet tells it. */
export interface PoolModel {
  readonly id: string;
  readonly modelRef: string;
}

export type KnownModel = CatalogRulesRow & CatalogModelRules;

export class CatalogView {
  readonly #deps: CatalogViewDeps;
  readonly #loop: Reconciler;
  #models: readonly KnownModel[] = [];
  /** By pool and what it serves; forgotten with every change of the catalog. */
  #names = new Map<string, readonly string[]>();
  /** What was asked before, until the catalog changes. */
  #refusals = new Map<string, Refusal | null>();
  #rows: readonly CatalogRulesRow[] = [];
  #version: string | null = null;
  /** Of the files that the models were made with. */
  #generation = -1;
  /** Looks overlap: one that began before another that counts already is not believed. */
  #begun = 0;
  #believed = 0;

  constructor(deps: CatalogViewDeps) {
    this.#deps = deps;
    this.#loop = new Reconciler({
      name: 'catalog',
      intervalMs: LOOK_EVERY_MS,
      run: () => this.look(),
      onError: (name, error) => deps.telemetry.backgroundFailure(name, error),
    });
  }

  /** Reads it for the first time. Rejects when that fails. */
  async start(): Promise<void> {
    await this.look();
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  async look(): Promise<void> {
    const { db, files, telemetry } = this.#deps;
    this.#begun += 1;
    const turn = this.#begun;
    const [version] = await Promise.all([catalogVersion(db), files.look()]);
    const rows = version === this.#version ? this.#rows : await listCatalogRules(db);
    if (turn < this.#believed) return;
    this.#believed = turn;
    // Asked for every second, and on the event loop: nothing is done where nothing has changed.
    if (version === this.#version && files.generation === this.#generation) return;
    this.#version = version;
    this.#generation = files.generation;
    this.#rows = rows;
    this.#models = rows.map((row) => this.#known(row));
    this.#names = new Map();
    this.#refusals = new Map();
    telemetry.modelStates(this.#models);
  }

  /** After a change made here, which stands even if it cannot be read again now. */
  async refresh(): Promise<void> {
    await this.look().catch((error: unknown) => this.#deps.telemetry.backgroundFailure('catalog', error));
  }

  get policy(): TrustPolicy {
    return this.#deps.policy;
  }

  /** The pools, each with every name by which its model may be asked for. */
  named<Pool extends PoolModel>(pools: readonly Pool[]): (Pool & { readonly names: readonly string[] })[] {
    return pools.map((pool) => ({ ...pool, names: this.#namesFor(pool) }));
  }

  /** @throws RefusalError MODEL_DEPRECATED or UNTRUSTED_ARTIFACT */
  check(ref: string, pools: readonly PoolModel[]): void {
    const { policy } = this.#deps;
    if (this.#models.length === 0 && policy.mode !== 'strict') return;
    const key = JSON.stringify([ref, pools.map(({ id, modelRef }) => [id, modelRef])]);
    const known = this.#refusals.get(key);
    const refusal = known === undefined ? refRefusal(ref, this.#serving(pools), this.#models, policy) : known;
    if (this.#refusals.size >= MAX_REMEMBERED) this.#refusals.clear();
    this.#refusals.set(key, refusal);
    if (refusal !== null) throw new RefusalError(refusal);
  }

  /** The entry that a reference means: by id, by digest, or by where it comes from. */
  find(ref: string): KnownModel | null {
    const canonical = canonicalRef(ref);
    const isFrom = ({ sourceUrl }: KnownModel) => sourceUrl !== null && canonicalRef(sourceUrl) === canonical;
    return (
      this.#models.find(({ id }) => id === ref) ??
      this.#models.find(({ digest }) => digest === ref) ??
      this.#models.find(isFrom) ??
      null
    );
  }

  isServedBy(model: KnownModel, pool: PoolModel): boolean {
    return isServedAs(model, this.#deps.served(pool.id, pool.modelRef));
  }

  /** Ids of the entries that describe what a pool serves. */
  idsServedBy(pool: PoolModel): string[] {
    return this.#models.filter((model) => this.isServedBy(model, pool)).map(({ id }) => id);
  }

  /** Hex digests that the catalog names for a file. A retired model promises nothing of it. */
  digestsOfPath(path: string): readonly string[] {
    const own = this.#models.filter(({ paths, state }) => state === 'Active' && paths.includes(path));
    return [...new Set(own.map(({ digest }) => digest.slice('sha256:'.length)))];
  }

  /**
   * Who else promises another digest of the file that a pool would read this model from, in words; null: nobody.
   * Of two that contradict each other at most one can be right, and a name must not lead to the bytes of the other.
   */
  contradicts({ digest }: KnownModel, poolId: string, path: string): string | null {
    const promised = this.#deps.served(poolId, `file:${path}`).digest;
    if (promised !== null && promised !== digest) return 'the configuration of the pool';
    const other = this.#models.find(
      (one) => one.state === 'Active' && one.digest !== digest && one.paths.includes(path),
    );
    return other === undefined ? null : `model ${other.id}`;
  }

  /** Those that serve nothing but models whose time is over. */
  toDrain(pools: readonly PoolModel[], nowMs: number): string[] {
    return poolsToDrain(this.#serving(pools), this.#models, nowMs).map(({ id }) => id);
  }

  #serving(pools: readonly PoolModel[]): ServingPool[] {
    return pools.map(({ id, modelRef }) => ({ ...this.#deps.served(id, modelRef), id }));
  }

  #namesFor({ id, modelRef }: PoolModel): readonly string[] {
    const key = JSON.stringify([id, modelRef]);
    const names = this.#names.get(key) ?? namesOf(this.#deps.served(id, modelRef), this.#models);
    this.#names.set(key, names);
    return names;
  }

  #known(row: CatalogRulesRow): KnownModel {
    const read = row.readDigest;
    const paths = this.#deps.files.paths(row);
    return { ...row, paths, verified: read === row.digest, mismatched: read !== null && read !== row.digest };
  }
}
