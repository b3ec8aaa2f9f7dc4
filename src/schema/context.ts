/** What every resolver is given. One per operation; a subscription keeps its own for as long as it lives. */
import type { Services } from '../services/services.js';
import type { PrismaClient } from '../store/generated/prisma/client.js';

export interface GraphQLContext {
  readonly services: Services;
  readonly prisma: PrismaClient;
  readonly correlationId: string;
  /** Who asks: `localhost` or `token:<fingerprint>`. */
  readonly identity: string;
  nowMs(): number;
}
