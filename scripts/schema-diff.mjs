// Prints the SQL that brings the database behind a URL to prisma/schema.prisma, the start of the next migration; prints
// nothing when they agree. It drives Prisma's own schema engine, built as wasm, in this process: the binary one cannot
// be installed offline. The package is internal to Prisma and pinned to the engine hash of our Prisma version.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PrismaPg } from '@prisma/adapter-pg';
import { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum } from '@prisma/driver-adapter-utils';
import * as engine from '@prisma/schema-engine-wasm/schema_engine_bg';
import pg from 'pg';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const EMPTY = '-- This is an empty migration.';

async function loadWasm() {
  // The wasm reports its panics through this registry, and fails obscurely without it.
  globalThis.PRISMA_WASM_PANIC_REGISTRY = { set_message: (message) => console.error(message) };
  const require = createRequire(import.meta.url);
  const file = join(dirname(require.resolve('@prisma/schema-engine-wasm')), 'schema_engine_bg.wasm');
  const module = await WebAssembly.compile(readFileSync(file));
  const instance = await WebAssembly.instantiate(module, { './schema_engine_bg.js': engine });
  engine.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
}

const CHAR_OID = 18;
const TEXT_OID = 25;

/** The adapter knows no one-byte "char", which columns of the catalog have; it reads them as text. */
function catalogPool(url) {
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  const query = pool.query.bind(pool);
  pool.query = async (...args) => {
    const result = await query(...args);
    for (const field of result.fields) if (field.dataTypeID === CHAR_OID) field.dataTypeID = TEXT_OID;
    return result;
  };
  return pool;
}

/** The engine wants its characters back as characters: PostgreSQL 18 lists NOT NULL as constraints, of type "n". */
function withCharacters(factory) {
  const connect = factory.connect.bind(factory);
  factory.connect = async () => {
    const connection = await connect();
    const queryRaw = connection.queryRaw.bind(connection);
    connection.queryRaw = async (query) => {
      const result = await queryRaw(query);
      const columnTypes = result.columnTypes.map((type, index) =>
        result.columnNames[index] === 'constraint_type' ? ColumnTypeEnum.Character : type,
      );
      return { ...result, columnTypes };
    };
    return connection;
  };
  return factory;
}

let wasm;

/** @param {string} url @returns {Promise<string>} '' when the database is as the schema says */
export async function schemaDiff(url) {
  wasm ??= loadWasm();
  await wasm;
  const path = join(root, 'prisma', 'schema.prisma');
  const files = [{ path, content: readFileSync(path, 'utf8') }];
  const pool = catalogPool(url);
  const adapter = bindMigrationAwareSqlAdapterFactory(withCharacters(new PrismaPg(pool)));
  const schemaEngine = await engine.SchemaEngine.new(
    { datamodels: files.map((f) => [f.path, f.content]) },
    () => {},
    adapter,
  );
  try {
    const result = await schemaEngine.diff({
      from: { tag: 'schemaDatasource', files, configDir: root },
      to: { tag: 'schemaDatamodel', files },
      script: true,
      exitCode: null,
      filters: { externalTables: [], externalEnums: [] },
    });
    const script = result.stdout ?? '';
    return script.trim() === EMPTY ? '' : script;
  } finally {
    schemaEngine.free();
    await pool.end();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const url = process.argv[2];
  if (url === undefined) throw new Error('usage: node scripts/schema-diff.mjs postgresql://…');
  process.stdout.write(await schemaDiff(url));
}
