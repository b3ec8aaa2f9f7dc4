/** The configuration of a first run: everything simulated and labelled so, nothing to install or download. */
import { type Config, type ConfigInput, ConfigSchema } from './schema.js';

const GIB_BYTES = 1024 ** 3;

const DEMO: ConfigInput = {
  gpu: {
    mode: 'simulated',
    devices: [
      { name: 'Simulated 24 GB', memory_bytes: 24 * GIB_BYTES },
      { name: 'Simulated 12 GB', memory_bytes: 12 * GIB_BYTES },
    ],
  },
  pools: [
    {
      id: 'demo',
      engine: 'llamacpp',
      model: 'demo-7b',
      ctx: 4096,
      devices: [0, 1],
      replicas: 2,
      slots: 2,
      provisioning: { mode: 'simulated', simulated: { vram_bytes: 6 * GIB_BYTES } },
    },
  ],
};

/** A fresh copy on every call. */
export function demoConfig(): Config {
  return ConfigSchema.parse(DEMO);
}
