export type LlamaServer = { file: string; source: 'env' | 'path' | 'debian' } | { unavailable: string };

export interface ObtainOptions {
  env?: NodeJS.ProcessEnv;
  log?: (line: string) => void;
  keyring?: string;
}

export function obtainLlamaServer(options?: ObtainOptions): Promise<LlamaServer>;
