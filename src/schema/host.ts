/** The host that the control plane runs on. */
import type { Services } from '../services/services.js';
import { builder } from './builder.js';

const MemoryLimit = builder.enumType('MemoryLimit', {
  description: 'Whose memory it is.',
  values: {
    MACHINE: { value: 'machine', description: "The machine's." },
    CGROUP: { value: 'cgroup', description: 'What a control group (a container, a service) allows.' },
  } as const,
});

const Host = builder.objectRef<ReturnType<Services['host']['memory']>>('Host').implement({
  description: 'The host that this control plane and its engines run on.',
  fields: (t) => ({
    memoryTotalBytes: t.field({
      type: 'BigInt',
      description: 'Main memory that may be used.',
      resolve: ({ totalBytes }) => BigInt(Math.floor(totalBytes)),
    }),
    memoryAvailableBytes: t.field({
      type: 'BigInt',
      description: 'What of it a new engine could have; file caches that are given up first count as available.',
      resolve: ({ availableBytes }) => BigInt(Math.floor(availableBytes)),
    }),
    limitedBy: t.field({
      type: MemoryLimit,
      description: 'Whether a control group leaves less than the machine has.',
      resolve: ({ limitedBy }) => limitedBy,
    }),
  }),
});

builder.queryField('host', (t) =>
  t.field({
    type: Host,
    description: 'The host that this control plane runs on, as it is now.',
    complexity: 2,
    resolve: (_root, _args, { services }) => services.host.memory(),
  }),
);
