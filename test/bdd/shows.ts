/** What is known of the things of a control plane, as GraphQL shows it. */
import type { Doors } from './doors.js';

const REASON = '{ code message fix }';
const TASK = `taskId status finishReason seed tokensIn tokensOut text attempts determinism priority workload queuePosition
  deadlineAt createdAt startedAt firstTokenAt endedAt correlationId sessionId
  error { code message retriable retryAfterMs } pool { name } replica { name } cancellation { slotFreeAt }
  receipt { engineVersion modelId seed tokens chainHash coResidentMax claim { kind because } samplerProfile { version } }
  transcript { kind digest content } waitingBecause ${REASON} lease { fencingToken releasedAt releaseReason }
  quote { p50Ms p90Ms basis } placement { chosen rule candidates { pool rank refusedBecause score { vramFreeBytes
  slotsFree predictedEndMs session } rules { rule passed message } } }`;
const POOL = `name live ready draining simulated engine engineVersion modelRef contextLength deviceMask generation
  slotsTotal slotsFree activeLeases computeCapability tokensPerSecond firstTokenMs vramTotalBytes vramFreeBytes
  lastHeartbeatAt lastError ${REASON} notReadyBecause ${REASON} devices { index name simulated health memoryTotalBytes }
  queue { capacity depth policy lanes { priority depth capacity oldestAgeMs } }
  replicas { name state health breaker restartCount deviceMask modelRef slotsFree vramBytes lastError ${REASON} }
  operation { kind state }`;
const REPLICA = `name state health breaker restartCount backoffUntil deviceMask modelRef modelId engineVersion slotsTotal
  slotsFree vramBytes kvUsage lastHeartbeatAt lastError ${REASON} preload { name state detail startedAt endedAt }
  lastCrash { fault message fix exitCode signal lastLines launchArgs readyForMs flagChanges { flag before after } }`;
const SESSION = 'sessionId turns ttlMsRemaining kvWarmth lastReplica { name }';
const OPERATION = `kind state progress outcome error ${REASON} steps { name state detail } startedAt endedAt`;

async function read(doors: Doors, query: string, variables: Record<string, unknown>): Promise<unknown> {
  const { data, errors } = await doors.graphql(query, variables);
  if (errors !== undefined) throw new Error(JSON.stringify(errors));
  return data.found;
}

/** What a pool serves; enough for those who ask it for something. */
export function showServed(doors: Doors, name: string): Promise<unknown> {
  const query = 'query ($name: String!) { found: pool(name: $name) { modelRef engine contextLength } }';
  return read(doors, query, { name });
}

/** How a task stands; enough for those who wait for its end. */
export function showEnding(doors: Doors, taskId: string): Promise<unknown> {
  const query = 'query ($id: UUID!) { found: task(taskId: $id) { status startedAt error { code } } }';
  return read(doors, query, { id: taskId });
}

/** Null where there is none, as for each of these. */
export function showTask(doors: Doors, taskId: string): Promise<unknown> {
  return read(doors, `query ($id: UUID!) { found: task(taskId: $id) { ${TASK} } }`, { id: taskId });
}

export function showPool(doors: Doors, name: string): Promise<unknown> {
  return read(doors, `query ($name: String!) { found: pool(name: $name) { ${POOL} } }`, { name });
}

export function showSession(doors: Doors, sessionId: string): Promise<unknown> {
  return read(doors, `query ($id: UUID!) { found: session(sessionId: $id) { ${SESSION} } }`, { id: sessionId });
}

export function showOperation(doors: Doors, id: string): Promise<unknown> {
  return read(doors, `query ($id: ID!) { found: operation(id: $id) { ${OPERATION} } }`, { id });
}

export async function showReplica(doors: Doors, name: string): Promise<unknown> {
  const pools = await read(doors, `{ found: pools { replicas { ${REPLICA} } } }`, {});
  const all = (pools as { replicas: { name: string }[] }[]).flatMap(({ replicas }) => replicas);
  return all.find((replica) => replica.name === name) ?? null;
}

interface PoolEvent {
  readonly kind: string;
  readonly message: string;
}

interface EventEdge {
  readonly cursor: string;
  readonly node: PoolEvent;
}

/** The cursor of the newest event of each pool that has any. */
export async function latestEvents(doors: Doors): Promise<Map<string, string>> {
  const pools = await read(doors, '{ found: pools { name events(first: 1) { edges { cursor } } } }', {});
  const cursors = (pools as { name: string; events: { edges: EventEdge[] } }[]).map(
    ({ name, events }) => [name, events.edges[0]?.cursor] as const,
  );
  return new Map(cursors.flatMap(([name, cursor]) => (cursor === undefined ? [] : [[name, cursor]])));
}

const EVENTS = `query ($pool: String!, $after: String) { found: pool(name: $pool) { events(first: 100, after: $after) {
  edges { cursor node { kind message detail replica { name } } } pageInfo { hasNextPage endCursor } } } }`;

/** The events of a pool, the oldest first. @param since cursor of the one before the first. */
export async function eventsOf(doors: Doors, pool: string, since?: string): Promise<PoolEvent[]> {
  const found: EventEdge[] = [];
  let after: string | null = null;
  do {
    const answer = await read(doors, EVENTS, { pool, after });
    if (answer === null) throw new Error(`there is no pool ${pool}`);
    const { events } = answer as {
      events: { edges: EventEdge[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };
    };
    found.push(...events.edges);
    after = events.pageInfo.hasNextPage ? events.pageInfo.endCursor : null;
  } while (after !== null && !found.some(({ cursor }) => cursor === since));
  const end = found.findIndex(({ cursor }) => cursor === since);
  return (end < 0 ? found : found.slice(0, end)).map(({ node }) => node).reverse();
}

/** Fields of every pool, asked of one after the other: of all at once they may cost more than one question may. */
export async function eachPool(doors: Doors, fields: string): Promise<unknown[]> {
  const pools = (await read(doors, '{ found: pools { name } }', {})) as { name: string }[];
  const query = `query ($name: String!) { found: pool(name: $name) { name ${fields} } }`;
  return Promise.all(pools.map(({ name }) => read(doors, query, { name })));
}

const OF_POOLS = [
  `lastError { message fix } replicas { lastError { message } preload { detail }
    lastCrash { message lastLines launchArgs } }`,
  'events(first: 100) { edges { node { kind message detail } } }',
  'replicas { name logs(lines: 70) { text } }',
];
const OF_ALL = [
  'artifacts(first: 50) { edges { node { artifactId content metadata tags } } }',
  'tasks(first: 50) { edges { node { taskId text error { message } } } }',
];

/** What is kept of what happened: events, logs of engines, transcripts and other artifacts, tasks. */
export async function shownWritings(doors: Doors): Promise<string[]> {
  const pools = await Promise.all(OF_POOLS.map((fields) => eachPool(doors, fields)));
  const others = await Promise.all(OF_ALL.map((fields) => read(doors, `{ found: ${fields} }`, {})));
  return [...pools, ...others].map((one) => JSON.stringify(one));
}
