#!/usr/bin/env node
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const entry = join(dirname(dirname(fileURLToPath(import.meta.url))), 'dist', 'server', 'main.js');
if (existsSync(entry)) {
  await import(pathToFileURL(entry).href);
} else {
  process.stderr.write('llama-orch is not built.\n  Fix: run `npm run build` in the package folder.\n');
  process.exitCode = 1;
}
