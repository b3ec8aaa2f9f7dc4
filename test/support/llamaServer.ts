import { obtainLlamaServer } from '../../scripts/llama-server.mjs';

export type RealLlamaServer = { file: string } | { unavailable: string };

let obtained: Promise<RealLlamaServer> | undefined;

/** A real `llama-server` to start, or the reason why this machine has none; looked for once per process. */
export async function realLlamaServer(): Promise<RealLlamaServer> {
  obtained ??= obtainLlamaServer();
  return await obtained;
}
