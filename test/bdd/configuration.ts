/** Pools as a table of a feature describes them, and the configuration file that they make. */

/** Columns that may stand in the table; what is left out has a quiet default. */
interface PoolRow {
  readonly pool: string;
  readonly engine: string;
  readonly model: string;
  readonly ctx: number;
  readonly replicas: number;
  readonly slots: number;
  readonly devices: string;
  /** Ratios of a split over all devices, with colons between them. */
  readonly split: string;
  /** Tokens per second; 0: as fast as possible. */
  readonly speed: number;
  readonly 'vram GiB': number;
  readonly queue: number;
  readonly policy: string;
  /** Requests per second of one caller, in the interactive lane. */
  readonly rps: number;
  /** More words for the command line of the simulator. */
  readonly flags: string;
  /** Faults of the simulator, with commas between them. */
  readonly faults: string;
  readonly 'idle ms': number;
  readonly 'wall ms': number;
  readonly 'canary ms': number;
  /** `no`: that it does not become ready is what the scenario is about. */
  readonly ready: string;
}

const DEFAULTS: Omit<PoolRow, 'pool' | 'model'> = {
  engine: 'llamacpp',
  ctx: 4096,
  replicas: 1,
  slots: 2,
  devices: '0',
  split: '',
  speed: 0,
  'vram GiB': 1,
  queue: 64,
  policy: 'reject',
  rps: 0,
  flags: '',
  faults: '',
  'idle ms': 5_000,
  'wall ms': 60_000,
  'canary ms': 30_000,
  ready: 'yes',
};

export interface Configuration {
  /** YAML; JSON is that too. */
  readonly text: string;
  /** Pools that are waited for. */
  readonly becomeReady: readonly string[];
}

const GPUS = [
  { name: 'Big', memory_bytes: 24 * 1024 ** 3 },
  { name: 'Small', memory_bytes: 12 * 1024 ** 3 },
];

function rowOf(cells: Readonly<Record<string, string>>): PoolRow {
  const row: Record<string, unknown> = { ...DEFAULTS, model: `${cells.pool}-7b` };
  for (const [column, cell] of Object.entries(cells)) {
    if (column !== 'pool' && column !== 'model' && !(column in DEFAULTS)) throw new Error(`no column ${column}`);
    if (cell !== '') row[column] = typeof row[column] === 'number' ? Number(cell) : cell;
  }
  return row as unknown as PoolRow;
}

function wordsOf(text: string): string[] {
  return text.split(/[ ,]+/).filter((word) => word !== '');
}

function poolOf(row: PoolRow): object {
  const faults = wordsOf(row.faults);
  return {
    id: row.pool,
    engine: row.engine,
    model: row.model,
    ctx: row.ctx,
    devices: wordsOf(row.devices).map(Number),
    ...(row.split !== '' && { tensor_split: row.split.split(':').map(Number) }),
    replicas: row.replicas,
    slots: row.slots,
    queue: { capacity: row.queue, full_policy: row.policy },
    admission: { priorities: row.rps === 0 ? [] : [{ name: 'interactive', rate_limit_rps: row.rps }] },
    timeouts: { wall_ms: row['wall ms'], idle_ms: row['idle ms'] },
    health: { canary_every_ms: row['canary ms'] },
    provisioning: {
      mode: 'simulated',
      flags: [...wordsOf(row.flags), ...faults.flatMap((fault) => ['--fault', fault])],
      simulated: {
        tokens_per_second: row.speed,
        first_token_ms: 0,
        load_ms: 0,
        vram_bytes: Math.round(row['vram GiB'] * 1024 ** 3),
      },
    },
  };
}

/** @param sections of the file beside the pools; `gpu` has two simulated ones of 24 and 12 GB when it is left out. */
export function configurationOf(
  table: readonly Readonly<Record<string, string>>[],
  sections: Readonly<Record<string, unknown>> = {},
): Configuration {
  const rows = table.map(rowOf);
  return {
    text: JSON.stringify({ gpu: { mode: 'simulated', devices: GPUS }, ...sections, pools: rows.map(poolOf) }),
    becomeReady: rows.filter(({ ready }) => ready === 'yes').map(({ pool }) => pool),
  };
}
