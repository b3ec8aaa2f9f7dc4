import { describe, expect, it } from 'vitest';
import { type EngineLaunch, readFault } from '../../src/engines/launch.js';
import { tgiDeterminism, tgiLaunch } from '../../src/engines/tgi/launch.js';

const facts: EngineLaunch = {
  ...{ binaryPath: '/opt/text-generation-launcher', model: '/models/m', servedName: 'm' },
  ...{ ports: [9000, 9001, 9002], contextPerSlot: 4096, slots: 8, gpuUuids: ['GPU-a', 'GPU-b'], gpuIndices: [0, 1] },
};

describe('launch', () => {
  it('writes every argument out that two launchers on a machine could disagree about', () => {
    const { file, args } = tgiLaunch(facts);
    expect([file, ...args].join(' ')).toBe(
      [
        '/opt/text-generation-launcher --model-id /models/m --hostname 127.0.0.1 --port 9000',
        '--max-total-tokens 4096 --max-input-tokens 4095 --max-concurrent-requests 12 --max-batch-size 8',
        '--num-shard 2 --master-port 9001 --shard-uds-path /tmp/tgi-9000 --prometheus-port 9002',
        '--graceful-termination-timeout 30 --usage-stats off',
      ].join(' '),
    );
  });

  it('gives the key by the environment only', () => {
    const spec = tgiLaunch({ ...facts, apiKey: 'secret-key' });
    expect(spec.env).toMatchObject({ API_KEY: 'secret-key', CUDA_VISIBLE_DEVICES: 'GPU-a,GPU-b' });
    expect(spec.args.join(' ')).not.toContain('secret-key');
    expect(tgiLaunch(facts).env).not.toHaveProperty('API_KEY');
  });

  it('hides every GPU where none is given, and still wants one shard', () => {
    const spec = tgiLaunch({ ...facts, gpuUuids: [] });
    expect(spec.env.CUDA_VISIBLE_DEVICES).toBe('-1');
    expect(spec.args.join(' ')).toContain('--num-shard 1 ');
  });

  it('takes from a single slot what varies, and from several nothing', () => {
    const alone = tgiLaunch({ ...facts, slots: 1 });
    expect(alone.args.join(' ')).toMatch(/--max-batch-size 1 .*--cuda-graphs 0$/);
    expect(alone.env).toMatchObject({ PREFIX_CACHING: '0' });
    expect(tgiLaunch(facts).args).not.toContain('--cuda-graphs');
    expect(tgiLaunch(facts).env).not.toHaveProperty('PREFIX_CACHING');
  });

  it('lets the pool’s own flags and variables have the last word', () => {
    const extras = { extraArgs: ['--quantize', 'fp8'], extraEnv: { PREFIX_CACHING: '1', HF_TOKEN: 't' } };
    const spec = tgiLaunch({ ...facts, slots: 1, ...extras });
    expect(spec.args.slice(-2)).toEqual(['--quantize', 'fp8']);
    expect(spec.env).toMatchObject({ PREFIX_CACHING: '1', HF_TOKEN: 't' });
  });

  it('waits for a server that refuses, and stops it with time for the router and then for the shards', () => {
    const { ready, stop } = tgiLaunch(facts);
    expect(ready).toEqual({ whileLoading: 'refuses', deadlineMs: 1_800_000 });
    expect(stop.drainWindowMs).toBeGreaterThan(2 * 30_000);
  });
});

describe('log lines', () => {
  const { logPatterns } = tgiLaunch(facts);
  const time = '2026-01-08T12:00:00.123456Z';
  const shard = (level: string, text: string): string =>
    `${time} ${level} shard-manager: text_generation_launcher: ${text}`;

  it.each([
    [
      'CPU_FALLBACK',
      [
        `${time}  WARN text_generation_launcher: Cannot determine GPU compute capability: RuntimeError: No CUDA GPUs are available`,
        shard(' INFO', 'Detected system cpu'),
      ],
    ],
    ['NO_GPU', ['Error: NotEnoughCUDADevices("`sharded` is true but only found 1 CUDA devices")']],
    [
      'VRAM_OOM_LOAD',
      [
        shard('ERROR', 'Error when initializing model'),
        'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a total capacity of 23.6 GiB',
        `${time} ERROR text_generation_launcher: Shard 0 failed to start`,
        'Error: ShardCannotStart',
      ],
    ],
    [
      'VRAM_OOM_LOAD',
      [
        'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.',
        'Error: Backend(Warmup(Generation("Not enough memory to handle 4096 prefill tokens. You need to decrease `--max-batch-prefill-tokens`")))',
        `${time} ERROR text_generation_launcher: Webserver Crashed`,
      ],
    ],
    ['VRAM_OOM_LOAD', ['Error: Backend(NotEnoughMemory(32768))']],
    [
      'VRAM_OOM_RUNTIME',
      [
        `${time} ERROR text_generation_launcher: Method Decode encountered an error.`,
        'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.',
        `${time} ERROR batch{batch_size=1}:decode: text_generation_router_v3::client: backends/v3/src/client/mod.rs:45: Server error: CUDA out of memory. Tried to allocate 2.00 GiB.`,
        `${time} ERROR text_generation_launcher: Shard 0 crashed`,
      ],
    ],
    [
      'CUDA_ERROR',
      [
        `${time} ERROR text_generation_launcher: Method Decode encountered an error.`,
        'RuntimeError: CUDA error: an illegal memory access was encountered',
        `${time} ERROR text_generation_launcher: Shard 0 crashed`,
        'Error: ShardFailed',
      ],
    ],
    [
      'PORT_TAKEN',
      [
        `${time} ERROR text_generation_router::server: router/src/server.rs:2320: Failed to bind to 127.0.0.1:9000: Address already in use (os error 98)`,
        `${time} ERROR text_generation_launcher: Webserver Crashed`,
      ],
    ],
    [
      'MODEL_UNREADABLE',
      [`${time} ERROR download: text_generation_launcher: Download encountered an error: `, 'Error: DownloadError'],
    ],
    [
      'MODEL_UNREADABLE',
      [
        shard('ERROR', 'Error when initializing model'),
        'ValueError: unsupported model type',
        'Error: ShardCannotStart',
      ],
    ],
    ['BAD_ARGUMENTS', ["error: unexpected argument '--max-tokens' found"]],
    ['BAD_ARGUMENTS', ['Error: ArgumentValidation("`max_input_tokens`(4096) must be < `max_total_tokens`(4096)")']],
    [
      'ENGINE_CORE_DEAD',
      [shard('ERROR', 'Shard process was signaled to shutdown with signal 9 rank=0'), 'Error: ShardFailed'],
    ],
    ['ENGINE_CORE_DEAD', [`${time} ERROR text_generation_launcher: Webserver Crashed`, 'Error: WebserverFailed']],
  ])('%s is read from %j', (fault, lines) => {
    expect(readFault(logPatterns, lines)?.pattern.fault).toBe(fault);
  });

  it('say nothing while all is well', () => {
    const lines = ['Starting shard rank=0', 'Waiting for shard to be ready... rank=0', 'Shard ready in 12.3s rank=0'];
    const router = ['Warming up model', 'Setting max batch total tokens to 131072', 'Connected', 'Success'];
    expect(
      readFault(
        logPatterns,
        [...lines, ...router, 'Detected system cuda'].map((text) => shard(' INFO', text)),
      ),
    ).toBeNull();
  });
});

describe('determinism', () => {
  it('is never claimed, with the reason', () => {
    expect(tgiDeterminism(null).claim).toBe('none');
    expect(tgiDeterminism({ slots: 1 })).toMatchObject({ claim: 'none', because: expect.stringContaining('promise') });
    expect(tgiDeterminism({ slots: 4 })).toMatchObject({ claim: 'none', because: expect.stringContaining('4 slots') });
  });
});
