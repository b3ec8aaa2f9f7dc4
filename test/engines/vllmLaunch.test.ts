import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import { readFault } from '../../src/engines/launch.js';
import { vllmDeterminism, vllmLaunch } from '../../src/engines/vllm/launch.js';
import { recipeFor } from '../../src/services/supervision/recipe.js';

const LAUNCH = { modelRef: 'org/model', ports: [1, 2, 3], apiKey: 'k', gpuUuids: [], gpuIndices: [] };
const RECIPE_ENV = {
  ...{ homeDir: '/h', configDir: '/c', simulatedGpus: true, searchPath: '', simEntry: '', nodeBinary: '' },
  ...{ containerEnv: {}, fileExists: () => true, catalogDigests: () => [] },
};

const facts = {
  ...{
    binaryPath: '/b/vllm',
    model: 'org/model',
    servedName: 'm',
    ports: [9000],
    contextPerSlot: 1024,
    gpuUuids: [],
    gpuIndices: [],
  },
};

describe('launch', () => {
  it('serves the model under its name, and keeps the key out of the arguments', () => {
    const spec = vllmLaunch({ ...facts, slots: 8, gpuUuids: ['GPU-a', 'GPU-b'], gpuIndices: [1, 3], apiKey: 'secret' });
    expect(spec.file).toBe('/b/vllm');
    expect(spec.args.join(' ')).toBe(
      'serve org/model --host 127.0.0.1 --port 9000 --served-model-name m --max-model-len 1024 --max-num-seqs 8 --tensor-parallel-size 2',
    );
    expect(spec.env).toEqual({
      ...{ CUDA_DEVICE_ORDER: 'PCI_BUS_ID', CUDA_VISIBLE_DEVICES: '1,3' },
      ...{ VLLM_API_KEY: 'secret', VLLM_NO_USAGE_STATS: '1', DO_NOT_TRACK: '1' },
      ...{ HF_HUB_OFFLINE: '1', TRANSFORMERS_OFFLINE: '1' },
    });
    expect(spec.ready.whileLoading).toBe('refuses');
  });

  it('makes a single slot vary least, and shows no GPU where none is given', () => {
    const spec = vllmLaunch({ ...facts, slots: 1, extraArgs: ['--seed', '1'] });
    expect(spec.args.slice(-4)).toEqual(['--no-enable-prefix-caching', '--enforce-eager', '--seed', '1']);
    expect(spec.env).toMatchObject({ CUDA_VISIBLE_DEVICES: '-1' });
    expect(spec.env).not.toHaveProperty('VLLM_API_KEY');
  });

  it('is kept from the model hub, unless policy or the environment of the pool says otherwise', () => {
    expect(vllmLaunch({ ...facts, slots: 2, mayReachHub: true }).env).not.toHaveProperty('HF_HUB_OFFLINE');
    const extraEnv = { HF_HUB_OFFLINE: '0' };
    expect(vllmLaunch({ ...facts, slots: 2, extraEnv }).env).toMatchObject(extraEnv);
  });

  it.each(['vllm', 'tgi'])('of %s may reach the hub where network.allow_hosts has it', (engine) => {
    const { pools } = parseConfig(
      `pools: [{ id: p, engine: ${engine}, model: org/model, provisioning: { mode: binary, binary: { url: "file:///b/e" } } }]`,
      'test.yaml',
    );
    const [pool] = pools;
    if (pool === undefined) throw new Error('no pool');
    const offline = (allowHosts: string[]) =>
      recipeFor(pool, { ...RECIPE_ENV, allowHosts }).launch(LAUNCH).env.HF_HUB_OFFLINE;
    expect([offline([]), offline(['*.huggingface.co', 'huggingface.co:8443'])]).toEqual(['1', '1']);
    expect([offline(['huggingface.co']), offline(['huggingface.co:443'])]).toEqual([undefined, undefined]);
  });

  it('lets the environment of the pool have the last word', () => {
    const extraEnv = { CUDA_VISIBLE_DEVICES: '0', VLLM_BATCH_INVARIANT: '1' };
    expect(vllmLaunch({ ...facts, slots: 2, gpuIndices: [1], extraEnv }).env).toMatchObject(extraEnv);
  });
});

describe('determinism', () => {
  it('is claimed for batch-invariant kernels alone', () => {
    const invariant = { VLLM_BATCH_INVARIANT: '1' };
    expect(vllmDeterminism({ slots: 8, extraEnv: invariant }).claim).toBe('byte_exact');
    for (const launched of [{ slots: 1 }, { slots: 1, extraEnv: { VLLM_BATCH_INVARIANT: '0' } }]) {
      expect(vllmDeterminism(launched)).toMatchObject({
        ...{ claim: 'none', because: expect.stringContaining('VLLM_BATCH_INVARIANT=1') },
      });
    }
    expect(vllmDeterminism(null)).toMatchObject({ claim: 'none', because: expect.stringContaining('somebody else') });
  });
});

describe('log', () => {
  const { logPatterns } = vllmLaunch({ ...facts, slots: 1 });
  const core = (text: string): string => `(EngineCore_DP0 pid=12) ERROR 11-10 12:30:57 [core.py:710] ${text}`;
  const START_FAILED = [
    core('EngineCore failed to start.'),
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}",
  ];
  const DIED = [
    core('EngineCore encountered a fatal error.'),
    'vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.',
  ];
  const OOM = core('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.');

  it.each([
    ['NO_GPU', ['RuntimeError: Failed to infer device type', ...START_FAILED]],
    ['NO_GPU', [core('RuntimeError: No CUDA GPUs are available'), ...START_FAILED]],
    [
      'KV_OOM',
      [
        core('ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`'),
        ...START_FAILED,
      ],
    ],
    [
      'KV_OOM',
      [
        core('(5.62 GiB KV cache is needed, which is larger than the available KV cache memory (2.40 GiB).'),
        ...START_FAILED,
      ],
    ],
    ['VRAM_OOM_LOAD', [core('Failed to load model - not enough GPU memory.'), OOM, ...START_FAILED]],
    [
      'VRAM_OOM_LOAD',
      [
        core(
          'ValueError: Free memory on device cuda:0 (1/8 GiB) on startup is less than desired GPU memory utilization (0.9, 7.2 GiB).',
        ),
        ...START_FAILED,
      ],
    ],
    ['VRAM_OOM_RUNTIME', [OOM, ...DIED]],
    ['VRAM_OOM_RUNTIME', [core('torch.AcceleratorError: CUDA error: out of memory'), ...DIED]],
    ['CUDA_ERROR', [core('torch.AcceleratorError: CUDA error: an illegal memory access was encountered'), ...DIED]],
    ['BAD_ARGUMENTS', ['vllm: error: unrecognized arguments: --max-num-seqz']],
    ['BAD_ARGUMENTS', ['ValueError: User-specified max_model_len (9999) is greater than the derived max_model_len']],
    ['PORT_TAKEN', ['OSError: [Errno 98] Address already in use']],
    ['MODEL_UNREADABLE', ["ValueError: Invalid repository ID or local directory specified: 'x'"]],
    ['MODEL_UNREADABLE', ["ValueError: Model architectures ['X'] are not supported for now.", ...START_FAILED]],
    ['ENGINE_CORE_DEAD', [...DIED]],
    ['ENGINE_CORE_DEAD', [...START_FAILED]],
  ])('says %s', (fault, lines) => {
    expect(readFault(logPatterns, lines)?.pattern.fault).toBe(fault);
  });

  it('of a good start says nothing', () => {
    const lines = [
      '(APIServer pid=1) INFO 11-10 12:30:57 [api_server.py:1] Starting vLLM server on http://0.0.0.0:8000',
      '(EngineCore_DP0 pid=12) INFO 11-10 12:30:57 [gpu_worker.py:1] Available KV cache memory: 18.83 GiB',
      '(APIServer pid=1) INFO:     Application startup complete.',
    ];
    expect(readFault(logPatterns, lines)).toBeNull();
  });
});
