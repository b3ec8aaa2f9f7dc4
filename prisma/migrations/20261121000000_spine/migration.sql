-- CreateEnum
CREATE TYPE "engine" AS ENUM ('llamacpp', 'vllm', 'tgi', 'triton');

-- CreateEnum
CREATE TYPE "workload" AS ENUM ('completion', 'embedding', 'rerank');

-- CreateEnum
CREATE TYPE "priority" AS ENUM ('interactive', 'batch');

-- CreateEnum
CREATE TYPE "determinism" AS ENUM ('strict', 'best_effort');

-- CreateEnum
CREATE TYPE "full_policy" AS ENUM ('reject', 'drop-lru', 'shed-low-priority');

-- CreateEnum
CREATE TYPE "task_status" AS ENUM ('QUEUED', 'LEASED', 'STREAMING', 'SUCCEEDED', 'CANCELED', 'FAILED', 'DROPPED', 'EXPIRED');

-- CreateEnum
CREATE TYPE "replica_state" AS ENUM ('ABSENT', 'PROVISIONING', 'STARTING', 'PRELOADING', 'SELF_TESTING', 'READY', 'DRAINING', 'STOPPING', 'BACKING_OFF', 'QUARANTINED', 'FAILED');

-- CreateEnum
CREATE TYPE "operation_kind" AS ENUM ('DRAIN', 'RESUME', 'RELOAD', 'RESTART');

-- CreateEnum
CREATE TYPE "operation_state" AS ENUM ('PENDING', 'RUNNING', 'SUCCEEDED', 'ROLLED_BACK', 'FAILED', 'CANCELED');

-- CreateTable
CREATE TABLE "pools" (
    "id" TEXT NOT NULL,
    "engine" "engine" NOT NULL,
    "model_ref" TEXT NOT NULL,
    "context_length" INTEGER NOT NULL,
    "device_mask" TEXT NOT NULL,
    "sampler_profile_version" TEXT,
    "slots_per_replica" INTEGER NOT NULL,
    "full_policy" "full_policy" NOT NULL,
    "simulated" BOOLEAN NOT NULL,
    "draining" BOOLEAN NOT NULL DEFAULT false,
    "generation" INTEGER NOT NULL DEFAULT 1,
    "config_hash" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "pools_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "queue_lanes" (
    "pool_id" TEXT NOT NULL,
    "priority" "priority" NOT NULL,
    "capacity" INTEGER NOT NULL,
    "depth" INTEGER NOT NULL DEFAULT 0,

    CONSTRAINT "queue_lanes_pkey" PRIMARY KEY ("pool_id","priority")
);

-- CreateTable
CREATE TABLE "replicas" (
    "id" TEXT NOT NULL,
    "pool_id" TEXT NOT NULL,
    "ordinal" INTEGER NOT NULL,
    "state" "replica_state" NOT NULL DEFAULT 'ABSENT',
    "slots_total" INTEGER NOT NULL,
    "device_mask" TEXT NOT NULL,
    "gpu_uuids" TEXT[],
    "vram_bytes" BIGINT NOT NULL DEFAULT 0,
    "node_id" UUID,
    "endpoint" TEXT,
    "pid" INTEGER,
    "pid_start_ticks" BIGINT,
    "mark" TEXT,
    "engine_version" TEXT,
    "model_id" TEXT,
    "restart_count" INTEGER NOT NULL DEFAULT 0,
    "backoff_until" TIMESTAMPTZ(3),
    "last_error" JSONB,
    "last_heartbeat_at" TIMESTAMPTZ(3),
    "tokens_per_second" DOUBLE PRECISION,
    "first_token_ms" DOUBLE PRECISION,

    CONSTRAINT "replicas_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "gpus" (
    "uuid" TEXT NOT NULL,
    "node_id" UUID NOT NULL,
    "index" INTEGER NOT NULL,
    "name" TEXT NOT NULL,
    "memory_total_bytes" BIGINT NOT NULL,
    "compute_capability" TEXT,
    "simulated" BOOLEAN NOT NULL,
    "seen_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "gpus_pkey" PRIMARY KEY ("uuid")
);

-- CreateTable
CREATE TABLE "tasks" (
    "id" UUID NOT NULL,
    "session_id" UUID NOT NULL,
    "pool_id" TEXT NOT NULL,
    "workload" "workload" NOT NULL,
    "priority" "priority" NOT NULL,
    "engine" "engine" NOT NULL,
    "model_ref" TEXT NOT NULL,
    "ctx" INTEGER NOT NULL,
    "prompt" TEXT NOT NULL,
    "max_tokens" INTEGER NOT NULL,
    "seed" BIGINT NOT NULL,
    "determinism" "determinism" NOT NULL,
    "kv_hint" TEXT,
    "sampler_profile_version" TEXT,
    "correlation_id" TEXT NOT NULL,
    "request_hash" TEXT NOT NULL,
    "placement" JSONB NOT NULL,
    "status" "task_status" NOT NULL DEFAULT 'QUEUED',
    "queue_seq" BIGSERIAL NOT NULL,
    "queue_position" INTEGER NOT NULL,
    "start_basis" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deadline_at" TIMESTAMPTZ(3) NOT NULL,
    "not_before" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(3),
    "first_token_at" TIMESTAMPTZ(3),
    "ended_at" TIMESTAMPTZ(3),
    "attempts" INTEGER NOT NULL DEFAULT 0,
    "lease_id" BIGINT,
    "replica_id" TEXT,
    "chunks" INTEGER NOT NULL DEFAULT 0,
    "tokens_in" INTEGER,
    "tokens_out" INTEGER NOT NULL DEFAULT 0,
    "decode_ms" INTEGER,
    "finish_reason" TEXT,
    "error" JSONB,
    "cancel_requested_at" TIMESTAMPTZ(3),
    "cancel_slot_free_at" TIMESTAMPTZ(3),
    "transcript_id" TEXT,

    CONSTRAINT "tasks_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "leases" (
    "id" BIGSERIAL NOT NULL,
    "task_id" UUID NOT NULL,
    "replica_id" TEXT NOT NULL,
    "slot" INTEGER NOT NULL,
    "holder" UUID NOT NULL,
    "acquired_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "renewed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "released_at" TIMESTAMPTZ(3),
    "release_reason" TEXT,

    CONSTRAINT "leases_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "stream_chunks" (
    "task_id" UUID NOT NULL,
    "ord" INTEGER NOT NULL,
    "kind" TEXT NOT NULL,
    "first_seq" INTEGER NOT NULL,
    "last_seq" INTEGER NOT NULL,
    "payload" JSON NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "stream_chunks_pkey" PRIMARY KEY ("task_id","ord")
);

-- CreateTable
CREATE TABLE "sessions" (
    "id" UUID NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "turns" INTEGER NOT NULL DEFAULT 0,

    CONSTRAINT "sessions_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts" (
    "id" TEXT NOT NULL,
    "kind" TEXT NOT NULL,
    "content" JSON NOT NULL,
    "tags" TEXT[],
    "parent" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "artifacts_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "pool_events" (
    "seq" BIGINT NOT NULL,
    "pool_id" TEXT NOT NULL,
    "replica_id" TEXT,
    "kind" TEXT NOT NULL,
    "message" TEXT NOT NULL,
    "detail" JSONB,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "pool_events_pkey" PRIMARY KEY ("seq")
);

-- CreateTable
CREATE TABLE "journal" (
    "id" INTEGER NOT NULL,
    "last_seq" BIGINT NOT NULL,

    CONSTRAINT "journal_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "operations" (
    "id" UUID NOT NULL,
    "pool_id" TEXT NOT NULL,
    "kind" "operation_kind" NOT NULL,
    "state" "operation_state" NOT NULL DEFAULT 'PENDING',
    "progress" DOUBLE PRECISION NOT NULL DEFAULT 0,
    "steps" JSONB NOT NULL,
    "input" JSONB NOT NULL,
    "outcome" TEXT,
    "error" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "ended_at" TIMESTAMPTZ(3),

    CONSTRAINT "operations_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "replicas_pool_id_ordinal_key" ON "replicas"("pool_id", "ordinal");

-- CreateIndex
CREATE UNIQUE INDEX "gpus_node_id_index_key" ON "gpus"("node_id", "index");

-- CreateIndex
CREATE INDEX "tasks_pool_id_created_at_id_idx" ON "tasks"("pool_id", "created_at", "id");

-- CreateIndex
CREATE INDEX "tasks_created_at_id_idx" ON "tasks"("created_at", "id");

-- CreateIndex
CREATE UNIQUE INDEX "tasks_lease_id_key" ON "tasks"("lease_id");

-- CreateIndex
CREATE INDEX "leases_task_id_idx" ON "leases"("task_id");

-- CreateIndex
CREATE INDEX "leases_replica_id_idx" ON "leases"("replica_id");

-- CreateIndex
CREATE INDEX "pool_events_pool_id_seq_idx" ON "pool_events"("pool_id", "seq");

-- CreateIndex
CREATE INDEX "operations_pool_id_created_at_idx" ON "operations"("pool_id", "created_at");

-- AddForeignKey
ALTER TABLE "queue_lanes" ADD CONSTRAINT "queue_lanes_pool_id_fkey" FOREIGN KEY ("pool_id") REFERENCES "pools"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "replicas" ADD CONSTRAINT "replicas_pool_id_fkey" FOREIGN KEY ("pool_id") REFERENCES "pools"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_pool_id_fkey" FOREIGN KEY ("pool_id") REFERENCES "pools"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_replica_id_fkey" FOREIGN KEY ("replica_id") REFERENCES "replicas"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_lease_id_fkey" FOREIGN KEY ("lease_id") REFERENCES "leases"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_transcript_id_fkey" FOREIGN KEY ("transcript_id") REFERENCES "artifacts"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "leases" ADD CONSTRAINT "leases_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "tasks"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "leases" ADD CONSTRAINT "leases_replica_id_fkey" FOREIGN KEY ("replica_id") REFERENCES "replicas"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "pool_events" ADD CONSTRAINT "pool_events_pool_id_fkey" FOREIGN KEY ("pool_id") REFERENCES "pools"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operations" ADD CONSTRAINT "operations_pool_id_fkey" FOREIGN KEY ("pool_id") REFERENCES "pools"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- What follows is beyond Prisma's schema language, and the schema diff does not look at it.

-- The order of service: interactive before batch, first come first served within a class.
CREATE INDEX "tasks_queue" ON "tasks" ("pool_id", "priority", "queue_seq") WHERE "status" = 'QUEUED';
CREATE INDEX "tasks_queue_deadline" ON "tasks" ("deadline_at") WHERE "status" = 'QUEUED';

-- Two holders of one slot, or two leases of one task, cannot exist.
CREATE UNIQUE INDEX "leases_one_holder_per_slot" ON "leases" ("replica_id", "slot") WHERE "released_at" IS NULL;
CREATE UNIQUE INDEX "leases_one_lease_per_task" ON "leases" ("task_id") WHERE "released_at" IS NULL;
CREATE INDEX "leases_held" ON "leases" ("expires_at") WHERE "released_at" IS NULL;

-- One operation at a time per pool.
CREATE UNIQUE INDEX "operations_one_per_pool" ON "operations" ("pool_id") WHERE "state" IN ('PENDING', 'RUNNING');

-- Heartbeats rewrite replicas and flushes rewrite tasks often: leave room for heap-only updates.
ALTER TABLE "tasks" SET (fillfactor = 80);
ALTER TABLE "replicas" SET (fillfactor = 50);

INSERT INTO "journal" ("id", "last_seq") VALUES (1, 0);

-- The depth of a lane is a number, not a count: counting would make admission slower the longer the queue is. Tasks enter
-- by submit_tasks(), which adds them; this sees them leave (claimed, ended) and come back (requeued). Lanes are taken in one
-- order, so that two writers cannot wait for each other. Waiting tasks are never deleted.
CREATE FUNCTION "count_queued_tasks"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  lane record;
BEGIN
  FOR lane IN
    SELECT c.pool_id, c.priority, sum(c.change)::int AS change FROM (
      SELECT o.pool_id, o.priority, -1 AS change FROM old_rows o WHERE o.status = 'QUEUED'
      UNION ALL
      SELECT n.pool_id, n.priority, 1 FROM new_rows n WHERE n.status = 'QUEUED'
    ) c GROUP BY c.pool_id, c.priority HAVING sum(c.change) <> 0 ORDER BY c.pool_id, c.priority
  LOOP
    UPDATE queue_lanes l SET depth = l.depth + lane.change WHERE l.pool_id = lane.pool_id AND l.priority = lane.priority;
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER "tasks_count_queued" AFTER UPDATE ON "tasks"
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION "count_queued_tasks"();

-- Admits a batch of tasks into one pool, all or nothing per task, in one round trip.
-- The pool's row lock makes admissions of a pool one at a time on every node, so the bound of a lane is exact; each
-- statement of the function sees a fresh snapshot, taken after the lock. Every input row gives one output row:
--   outcome 'admitted' | 'known' (same id, same hash: the first receipt stands) | 'conflict' | 'full' | 'draining'.
CREATE FUNCTION "submit_tasks"(p_pool text, p_tasks json, p_session_ttl_ms bigint)
RETURNS TABLE (ord int, outcome text, task_id uuid, queue_position int, start_basis jsonb, created_at timestamptz)
LANGUAGE plpgsql
-- Planned once per connection, maybe while the tables are empty: only plans that stay good when they are not.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_draining boolean;
BEGIN
  SELECT p.draining INTO v_draining FROM pools p WHERE p.id = p_pool FOR NO KEY UPDATE;
  RETURN QUERY
  WITH input AS (
    SELECT * FROM json_to_recordset(p_tasks) AS i(
      ord int, id uuid, session_id uuid, workload workload, priority priority, engine engine, model_ref text, ctx int,
      prompt text, max_tokens int, seed bigint, determinism determinism, kv_hint text, sampler_profile_version text,
      correlation_id text, request_hash text, placement jsonb, start_basis jsonb, deadline_ms bigint)
  ), known AS (
    SELECT i.ord, CASE WHEN t.request_hash = i.request_hash THEN 'known' ELSE 'conflict' END AS outcome,
           t.id, t.queue_position, t.start_basis, t.created_at
    FROM input i JOIN tasks t ON t.id = i.id
  ), lane AS (
    SELECT l.priority, l.capacity, l.depth FROM queue_lanes l WHERE l.pool_id = p_pool
  ), fresh AS (
    SELECT i.*, row_number() OVER (PARTITION BY i.priority ORDER BY i.ord) - 1 AS rank
    FROM input i WHERE NOT EXISTS (SELECT 1 FROM known k WHERE k.ord = i.ord)
  ), placed AS (
    SELECT f.*, (lane.depth + f.rank
             + CASE WHEN f.priority = 'batch' THEN (SELECT o.depth FROM lane o WHERE o.priority = 'interactive') ELSE 0 END
           )::int AS place,
           NOT v_draining AND lane.depth + f.rank < lane.capacity AS fits
    FROM fresh f JOIN lane USING (priority)
  ), added AS (
    INSERT INTO tasks (id, session_id, pool_id, workload, priority, engine, model_ref, ctx, prompt, max_tokens, seed,
      determinism, kv_hint, sampler_profile_version, correlation_id, request_hash, placement, queue_position, start_basis,
      deadline_at)
    SELECT p.id, p.session_id, p_pool, p.workload, p.priority, p.engine, p.model_ref, p.ctx, p.prompt, p.max_tokens, p.seed,
      p.determinism, p.kv_hint, p.sampler_profile_version, p.correlation_id, p.request_hash, p.placement, p.place,
      p.start_basis, now() + p.deadline_ms * interval '1 millisecond'
    FROM placed p WHERE p.fits ORDER BY p.ord
    RETURNING tasks.id, tasks.session_id, tasks.queue_position, tasks.start_basis, tasks.created_at
  ), counted AS (
    UPDATE queue_lanes l SET depth = l.depth + c.n
    FROM (SELECT p.priority, count(*)::int AS n FROM placed p WHERE p.fits GROUP BY p.priority) c
    WHERE l.pool_id = p_pool AND l.priority = c.priority
  ), turn AS (
    INSERT INTO sessions (id, expires_at, turns)
    SELECT a.session_id, now() + p_session_ttl_ms * interval '1 millisecond', count(*)::int FROM added a
    GROUP BY a.session_id ORDER BY a.session_id
    ON CONFLICT (id) DO UPDATE SET
      turns = CASE WHEN sessions.expires_at > now() THEN sessions.turns ELSE 0 END + excluded.turns,
      expires_at = excluded.expires_at
  )
  SELECT k.ord, k.outcome, k.id, k.queue_position, k.start_basis, k.created_at FROM known k
  UNION ALL
  SELECT p.ord, CASE WHEN p.fits THEN 'admitted' WHEN v_draining THEN 'draining' ELSE 'full' END,
         p.id, p.place, coalesce(a.start_basis, p.start_basis), a.created_at
  FROM placed p LEFT JOIN added a ON a.id = p.id;
END $$;
