/** The protocols that are built, by what `--protocol` calls them. */
import { llamaCpp } from './llamacpp/protocol.js';
import type { SimProtocol } from './protocol.js';
import { tgi } from './tgi/protocol.js';
import { triton } from './triton/protocol.js';
import { vllm } from './vllm/protocol.js';

export const PROTOCOLS: ReadonlyMap<string, SimProtocol> = new Map(
  [llamaCpp, tgi, triton, vllm].map((protocol) => [protocol.name, protocol]),
);
