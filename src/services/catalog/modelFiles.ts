/** Where the file of a catalog model is on this host. */
import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseModelRef } from '../../core/modelRef.js';
import type { ReadableFiles } from '../../host/provision/modelFile.js';

export interface ModelFilesDeps {
  /** The model cache of this node. */
  readonly modelsDir: string;
  /** Relative paths start here. */
  readonly configDir: string;
  /** Folders besides the cache that models may be read from, and files that pools are configured with. */
  readonly roots: readonly string[];
  readonly configured: readonly string[];
}

interface Located {
  readonly digest: string;
  readonly sourceUrl: string | null;
}

export class ModelFiles {
  readonly #deps: ModelFilesDeps;
  #cached: ReadonlySet<string> = new Set();
  #generation = 0;

  constructor(deps: ModelFilesDeps) {
    this.#deps = deps;
  }

  get readable(): ReadableFiles {
    const { modelsDir, roots, configured } = this.#deps;
    return { folders: [modelsDir, ...roots], files: configured };
  }

  /** The model cache. */
  get folder(): string {
    return this.#deps.modelsDir;
  }

  /** Another one after every change that a look has found in the cache. */
  get generation(): number {
    return this.#generation;
  }

  /** Looks what is in the cache. */
  async look(): Promise<void> {
    const cached = new Set(await readdir(this.#deps.modelsDir));
    if (cached.size === this.#cached.size && [...cached].every((name) => this.#cached.has(name))) return;
    this.#cached = cached;
    this.#generation += 1;
  }

  /** Where a model that is fetched is kept, under its digest. */
  cachePath({ digest }: Located): string {
    return join(this.#deps.modelsDir, digest.replace(':', '-'));
  }

  /** The path that its source names on this machine; null for one that comes over the network, or from nowhere. */
  sourcePath({ sourceUrl }: Located): string | null {
    const source = sourceUrl === null ? null : parseModelRef(sourceUrl);
    return source?.kind === 'file' ? resolve(this.#deps.configDir, source.path) : null;
  }

  /** As of the last look. */
  isCached(model: Located): boolean {
    return this.#cached.has(model.digest.replace(':', '-'));
  }

  /** All paths by which a pool may have it. */
  paths(model: Located): string[] {
    const source = this.sourcePath(model);
    return [...(source === null ? [] : [source]), ...(this.isCached(model) ? [this.cachePath(model)] : [])];
  }
}
