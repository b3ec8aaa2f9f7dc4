/** The `provisioning` section of a pool, and what it shares with the rest of the file. See schema.ts for the rules of all of it. */
import { z } from 'zod';
import { isLoopback } from './environment.js';
import { pathOfFileUrl } from './fileUrl.js';

const PROVISIONING_MODES = ['external', 'source', 'container', 'package', 'binary', 'simulated'] as const;
const GIB_BYTES = 1024 ** 3;

export const text = z.string().min(1).max(4096);
export const positiveInt = z.int().min(1);
const sha256 = z
  .string()
  .regex(/^sha256:[0-9a-f]{64}$/, { error: 'is not a digest — write sha256: and 64 lower-case hex digits' });

function urlOf(value: string): URL | null {
  return URL.canParse(value) ? new URL(value) : null;
}

function hasCredentials(url: URL): boolean {
  return url.username !== '' || url.password !== '';
}

export const endpointUrl = z
  .string()
  .refine((value) => ['http:', 'https:'].includes(urlOf(value)?.protocol ?? ''), {
    error: 'is not an http(s) URL — write e.g. http://127.0.0.1:8081',
    abort: true,
  })
  .refine((value) => !hasCredentials(new URL(value)), {
    error: 'holds a user name or password — remove them from the URL',
  });

/** Over the network https alone; http is for a server on this machine. */
function isFetchable(url: URL): boolean {
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname));
}

const binaryUrl = z
  .string()
  .refine(
    (value) => {
      const url = urlOf(value);
      return url !== null && (isFetchable(url) || pathOfFileUrl(value) !== null);
    },
    {
      error: 'is neither https:// nor file:/// with an absolute path — write e.g. file:///opt/llama.cpp/llama-server',
      abort: true,
    },
  )
  .refine((value) => !hasCredentials(new URL(value)), {
    error: 'holds a user name or password — remove them from the URL',
  });

const SimulatedSchema = z.strictObject({
  /** 0: as fast as possible. */
  tokens_per_second: z.number().nonnegative().max(1_000_000).default(40),
  first_token_ms: z.int().min(0).default(50),
  load_ms: z.int().min(0).default(200),
  /** What one replica claims of its simulated GPUs. */
  vram_bytes: positiveInt.default(4 * GIB_BYTES),
});

const repoUrl = z
  .string()
  .refine(
    (value) => {
      const url = urlOf(value);
      return url !== null && (isFetchable(url) || pathOfFileUrl(value) !== null);
    },
    { error: 'is no https:// URL — write e.g. https://github.com/ggml-org/llama.cpp', abort: true },
  )
  .refine((value) => !hasCredentials(new URL(value)), {
    error: 'holds a user name or password — remove them from the URL',
  });

const SourceSchema = z.strictObject({
  repo: repoUrl,
  /** A tag or commit; a branch is built as it is when it is first seen. */
  ref: z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}$/, {
    error: 'is not a tag, branch or commit — use letters, digits and . _ / + - only, beginning with a letter or digit',
  }),
  submodules: z.boolean().default(false),
  build: z
    .strictObject({
      cmake_flags: z
        .array(
          z.string().regex(/^-D[A-Za-z0-9_]+(?::[A-Z]+)?=[^\n\0]*$/, {
            error: 'is no definition for CMake — write e.g. -DGGML_CUDA=ON',
          }),
        )
        .max(100)
        .default([]),
      generator: z.enum(['Ninja', 'Unix Makefiles']).optional(),
      cache_dir: text.optional(),
    })
    .prefault({}),
});

const ContainerSchema = z.strictObject({
  image: z
    .string()
    .regex(/^[a-z0-9][a-zA-Z0-9._:/-]{0,254}(?:@sha256:[0-9a-f]{64})?$/, {
      error: 'is no image name — write e.g. ghcr.io/ggml-org/llama.cpp@sha256:<64 hex digits>',
      abort: true,
    })
    // With a dot or colon, what stands before a slash is the registry, which policy takes for a host.
    .refine((image) => !/^[^/]*[.:][^/]*\//.test(image) || URL.canParse(`https://${image.split('/')[0]}/`), {
      error: 'has no host and port before its first slash — write e.g. localhost:5000/engine@sha256:<64 hex digits>',
    }),
  /** A tag, or the digest as sha256:hex. */
  tag: z
    .string()
    .regex(/^(?:sha256:[0-9a-f]{64}|[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$/, {
      error: 'is neither a tag nor a digest — write e.g. sha256: and 64 lower-case hex digits',
    })
    .optional(),
});

/** What becomes an argument of a package manager. */
const packageWord = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._+:~[\],-]{0,199}$/, {
  error: 'has characters that no package name or version has — use letters, digits and . _ + : ~ - only',
});
const PackageSchema = z.strictObject({
  name: packageWord,
  version: packageWord.optional(),
  repo: endpointUrl.optional(),
});

/** `host`, `host:port` or `*.domain`. */
export const allowedHost = z
  .string()
  .regex(
    /^(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?::\d{1,5})?$|^\[[0-9A-Fa-f:]+\](?::\d{1,5})?$/,
    {
      error: 'is not a host — write e.g. github.com, *.githubusercontent.com or 127.0.0.1:8000, without https://',
    },
  );

const ProvisioningFields = z.strictObject({
  mode: z.enum(PROVISIONING_MODES),
  allow_package_installs: z.boolean().default(false),
  allow_binary_downloads: z.boolean().default(false),
  source: SourceSchema.optional(),
  container: ContainerSchema.optional(),
  package: PackageSchema.optional(),
  binary: z.strictObject({ url: binaryUrl, checksum: sha256.optional(), install_dir: text.optional() }).optional(),
  simulated: SimulatedSchema.optional(),
  model: z.strictObject({ ref: text.optional(), cache_dir: text.optional(), checksum: sha256.optional() }).optional(),
  ports: z.array(z.int().min(1).max(65_535)).default([]),
  env: z
    .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string(), {
      error: (issue) =>
        issue.code === 'invalid_key' ? 'is not a variable name — use letters, digits and _' : undefined,
    })
    .default({}),
  flags: z.array(z.string()).default([]),
});

/** Where `mode` is `simulated`, `simulated` is always there, defaults filled in. */
export const ProvisioningSchema = ProvisioningFields.transform((fields): z.output<typeof ProvisioningFields> => {
  if (fields.mode !== 'simulated' || fields.simulated !== undefined) return fields;
  return { ...fields, simulated: SimulatedSchema.parse({}) };
});
