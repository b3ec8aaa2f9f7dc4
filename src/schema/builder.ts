/** The one builder of the schema. Every noun adds itself to it in its own file; schema.ts imports them all. */
import SchemaBuilder from '@pothos/core';
import ComplexityPlugin from '@pothos/plugin-complexity';
import ErrorsPlugin from '@pothos/plugin-errors';
import PrismaPlugin from '@pothos/plugin-prisma';
import RelayPlugin from '@pothos/plugin-relay';
import ValidationPlugin from '@pothos/plugin-validation';
import { GraphQLError } from 'graphql';
import { z } from 'zod';
import { isUuid } from '../core/ids.js';
import type PrismaTypes from '../store/generated/pothos.js';
import { getDatamodel } from '../store/generated/pothos.js';
import ForwardConnections, { MAX_PAGE } from './connections.js';
import type { GraphQLContext } from './context.js';

/** The sum of field costs that one operation may have; a page of 100 tasks with every field is about 3000. */
const MAX_COMPLEXITY = 20_000;
const MAX_BREADTH = 1_000;

export interface SchemaTypes {
  Context: GraphQLContext;
  PrismaTypes: PrismaTypes;
  DefaultFieldNullability: false;
  Scalars: {
    ID: { Input: string; Output: string | number | bigint };
    DateTime: { Input: Date; Output: Date };
    BigInt: { Input: bigint; Output: bigint };
    JSON: { Input: unknown; Output: unknown };
    UUID: { Input: string; Output: string };
    /** Milliseconds; null: for ever. */
    DisconnectGrace: { Input: number | null; Output: number | null };
  };
}

const isName = (id: string) => !id.includes('\u0000');

/** Of every type that has global ids: which texts can be its key. Any other is the id of nothing; nobody is asked. */
const KEY_SHAPES: ReadonlyMap<string, (id: string) => boolean> = new Map([
  ['Task', isUuid],
  ['Session', isUuid],
  ['Operation', isUuid],
  ['PreparedEngine', isUuid],
  ['CrashRecord', isUuid],
  ['TaskVerification', isUuid],
  ['ModelStaging', isUuid],
  ['Artifact', isName],
  ['CatalogModel', isName],
  ['Lease', (id: string) => /^[0-9]{1,18}$/.test(id)],
  ['Pool', isName],
  ['Replica', isName],
  ['Gpu', isName],
]);

export const builder = new SchemaBuilder<SchemaTypes>({
  // Errors come first, so that they see what every other plugin throws.
  plugins: [ErrorsPlugin, ComplexityPlugin, RelayPlugin, ForwardConnections, PrismaPlugin, ValidationPlugin],
  defaultFieldNullability: false,
  errors: { directResult: true, defaultTypes: [] },
  complexity: {
    limit: { complexity: MAX_COMPLEXITY, breadth: MAX_BREADTH },
    complexityError: (kind, result) =>
      new GraphQLError(
        `The operation is too costly: ${kind.toLowerCase()} ${kind === 'Breadth' ? result.breadth : result.complexity} of at most ${kind === 'Breadth' ? MAX_BREADTH : MAX_COMPLEXITY}.`,
        { extensions: { code: 'INVALID_PARAMS' } },
      ),
  },
  relay: {
    cursorType: 'String',
    nodeTypeOptions: { description: 'Anything that can be read again by its global id.' },
    nodeQueryOptions: {
      description: 'Reads any object by its global id; null when there is none.',
      nullable: true,
      args: { id: { description: 'The global id, as the `id` field of the object gave it.' } },
      resolve: (_root, { id }, _context, _info, resolveNode) =>
        KEY_SHAPES.get(id.typename)?.(id.id) === true ? resolveNode(id) : null,
    },
    nodesQueryOptions: false,
    pageInfoTypeOptions: { description: 'Where a page stands in its list.' },
    hasNextPageFieldOptions: { description: 'Whether there is more after this page.' },
    hasPreviousPageFieldOptions: { description: 'Whether this page was asked for with `after`.' },
    startCursorFieldOptions: { description: 'Cursor of the first edge; null on an empty page.' },
    endCursorFieldOptions: { description: 'Cursor of the last edge, to be given as `after`; null on an empty page.' },
    cursorFieldOptions: { description: 'Where this edge stands, to be given as `after`.' },
    nodeFieldOptions: { description: 'The object at this place.' },
    // The connection field itself carries the multiplier.
    edgesFieldOptions: { description: 'The page, in order.', complexity: { field: 1, multiplier: 1 } },
    pageInfoFieldOptions: { description: 'Where this page stands in the list.' },
    idFieldOptions: { description: 'Global id, for `node`.' },
    firstArgOptions: {
      description: `How many to return, 1 to ${MAX_PAGE}.`,
      validate: z.int().min(1).max(MAX_PAGE),
    },
    afterArgOptions: { description: 'Cursor to continue after.' },
  },
  prisma: {
    client: (context) => context.prisma,
    dmmf: getDatamodel(),
    maxConnectionSize: MAX_PAGE,
    defaultConnectionSize: MAX_PAGE,
    exposeDescriptions: false,
    onUnusedQuery: process.env.NODE_ENV === 'production' ? null : 'warn',
  },
});

builder.queryType({ description: 'Everything that can be read.' });
builder.mutationType({ description: 'Everything that can be changed.' });
builder.subscriptionType({
  description:
    'Streams. Each first replays what is past `after`, or the last `lines`, and then goes on live, with no gap and no duplicate.',
});

/** The cost of a page: its rows, each with what is asked of it. */
export function pageCost(args: { readonly first?: number | null | undefined }): { field: number; multiplier: number } {
  return { field: 2, multiplier: Math.min(Math.max(args.first ?? MAX_PAGE, 1), MAX_PAGE) };
}

/** A result may have 8 MiB: some fit into an answer, a whole page does not. */
export const RESULT_COST = 1_000;
