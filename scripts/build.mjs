// Builds dist/ from src/: generates the Prisma client, then strips types file by file with esbuild (no bundling,
// so a stack trace names the source file). `--if-stale` does nothing when dist/ is newer than every input.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, 'dist', '.stamp');
const generated = join(root, 'src', 'store', 'generated');

function* filesUnder(dir) {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) yield* filesUnder(path);
    else yield path;
  }
}

function newestMs(paths) {
  let newest = 0;
  for (const path of paths) newest = Math.max(newest, statSync(path).mtimeMs);
  return newest;
}

const schemaFile = join(root, 'prisma', 'schema.prisma');
const sources = [...filesUnder(join(root, 'src'))];

function isFresh() {
  if (!existsSync(stamp) || !existsSync(generated)) return false;
  const builtMs = statSync(stamp).mtimeMs;
  return newestMs([...sources, schemaFile, join(root, 'package.json'), fileURLToPath(import.meta.url)]) <= builtMs;
}

/** `prisma generate` wants a schema engine binary that it never runs; /bin/true stands in for it, in this call only. */
function generatePrismaClient() {
  const client = join(generated, 'prisma', 'client.ts');
  if (existsSync(client) && statSync(client).mtimeMs >= statSync(schemaFile).mtimeMs) return;
  rmSync(generated, { recursive: true, force: true });
  const cli = join(root, 'node_modules', 'prisma', 'build', 'index.js');
  const run = spawnSync(process.execPath, [cli, 'generate'], {
    cwd: root,
    env: {
      ...process.env,
      // The second generator is found by name, also when no npm has set the path.
      PATH: [join(root, 'node_modules', '.bin'), process.env.PATH].join(delimiter),
      PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true',
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
      CHECKPOINT_DISABLE: '1',
    },
    encoding: 'utf8',
  });
  if (run.status !== 0) throw new Error(`prisma generate failed:\n${run.stdout}\n${run.stderr}`);
}

if (process.argv.includes('--if-stale') && isFresh()) process.exit(0);

generatePrismaClient();
const dist = join(root, 'dist');
rmSync(dist, { recursive: true, force: true });
const entryPoints = [...filesUnder(join(root, 'src'))].filter(
  (path) => path.endsWith('.ts') && !path.endsWith('.d.ts'),
);
await build({
  entryPoints,
  outdir: dist,
  outbase: join(root, 'src'),
  format: 'esm',
  platform: 'node',
  target: 'node20',
  sourcemap: true,
  logLevel: 'warning',
});
for (const path of sources.filter((file) => !file.endsWith('.ts') && !file.includes('generated'))) {
  const target = join(dist, relative(join(root, 'src'), path));
  mkdirSync(dirname(target), { recursive: true });
  cpSync(path, target);
}
writeFileSync(stamp, '');
