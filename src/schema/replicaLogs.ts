/** The logs of engines: their end, and as they grow. */
import type { ReplicaLogLine } from '../services/replicaLogs.js';
import { builder } from './builder.js';
import { Replica } from './replica.js';
import { ReaderSource } from './source.js';

const DEFAULT_LINES = 100;
const MAX_LINES = 1_000;

const LogLine = builder.objectRef<ReplicaLogLine>('LogLine').implement({
  description: 'A line that an engine wrote to its log.',
  fields: (t) => ({
    number: t.field({
      type: 'BigInt',
      nullable: true,
      description:
        'Its place in this answer or stream, from 1, dropped lines counted; null for a note that lines were dropped.',
      resolve: ({ number }) => (number === null ? null : BigInt(number)),
    }),
    at: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When it was read from the log; null for a line that was there before.',
      resolve: ({ atMs }) => (atMs === null ? null : new Date(atMs)),
    }),
    text: t.exposeString('text', {
      description:
        'The line without secrets, terminal escapes and control characters; past 8 KiB it is cut, and says how much.',
    }),
  }),
});

builder.prismaObjectFields('Replica', (t) => ({
  logs: t.field({
    type: [LogLine],
    description: 'The last lines of its log, oldest first; none when llama-orch did not start its engine.',
    args: {
      lines: t.arg.int({
        required: true,
        defaultValue: DEFAULT_LINES,
        description: `How many, 1 to ${MAX_LINES}; looked for in the last MiB.`,
      }),
    },
    complexity: ({ lines }) => ({ field: 5, multiplier: Math.min(Math.max(lines, 1), MAX_LINES) }),
    select: { id: true, nodeId: true },
    resolve: (replica, { lines }, { services }) => services.replicaLogs.tail(replica, lines),
  }),
}));

builder.subscriptionField('replicaLogs', (t) =>
  t.field({
    type: LogLine,
    description:
      'The last lines of the log of a replica, then each new one, also after its engine was started anew. A reader that is too slow gets a note in place of the lines it missed.',
    args: {
      replica: t.arg.globalID({ required: true, for: Replica, description: 'The `id` of the replica.' }),
      lines: t.arg.int({
        defaultValue: DEFAULT_LINES,
        description: `How many lines to begin with, 0 to ${MAX_LINES}; 0: only what is to come.`,
      }),
    },
    subscribe: async (_root, { replica, lines }, { services }) =>
      new ReaderSource(await services.replicaLogs.open(replica.id, lines ?? DEFAULT_LINES)),
    resolve: (line: ReplicaLogLine) => line,
  }),
);
