/** Where things of this package are, seen from dist/server/ or src/server/ alike. */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export const MIGRATIONS_DIR = join(root, 'prisma', 'migrations');
/** Engines are started from the build, also when the control plane itself runs from source in a test. */
export const SIM_ENTRY = join(root, 'dist', 'engines', 'sim', 'main.js');
export const OPENAPI_DIR = join(root, 'contracts', 'openapi');
export const PACKAGE_JSON = join(root, 'package.json');
