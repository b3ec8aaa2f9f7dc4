-- AlterTable
ALTER TABLE "pool_events" ADD COLUMN     "id" UUID NOT NULL DEFAULT gen_random_uuid();

-- AlterTable
ALTER TABLE "tasks" ADD COLUMN     "disconnect_grace_ms" INTEGER,
ADD COLUMN     "follows_pool" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "inputs" TEXT[] DEFAULT ARRAY[]::TEXT[],
ADD COLUMN     "result_id" TEXT;

-- CreateIndex
CREATE UNIQUE INDEX "pool_events_id_key" ON "pool_events"("id");

-- AddForeignKey
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_result_id_fkey" FOREIGN KEY ("result_id") REFERENCES "artifacts"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- What follows is beyond Prisma's schema language, and the schema diff does not look at it.

-- Admits a batch of tasks into one pool in one round trip, as if each had come alone, in their order; all or nothing per
-- task, and a displaced task ends in the same transaction that admits the one it makes room for.
-- The pool's row lock makes admissions of a pool one at a time on every node, so the bounds are exact; each statement sees
-- a fresh snapshot, taken after the lock. Both lanes are taken in the order that all writers keep, and who has them waits
-- for no waiting task: so no two writers wait for each other. Every input row gives one output row:
--   outcome 'admitted' | 'known' (same id, same hash: the first receipt stands) | 'conflict' | 'full' | 'draining';
--   displaced: what is to be told of the task that made room, or NULL.
-- The arrays repeat what p_tasks holds: that is large, and parsed once.
CREATE OR REPLACE FUNCTION "submit_tasks"(p_pool text, p_ids uuid[], p_priorities priority[], p_hashes text[], p_tasks json,
  p_session_ttl_ms bigint, p_displaced_error json)
RETURNS TABLE (ord int, outcome text, queue_position int, start_basis jsonb, displaced jsonb)
LANGUAGE plpgsql
-- Planned once per connection, maybe while the tables are empty: only plans that stay good when they are not.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_material = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_pool record;
  v_lane record;
  v_interactive_capacity int;
  v_interactive int;
  v_batch_capacity int;
  v_batch int;
  v_known uuid[];
  v_places int[] := array_fill(NULL::int, ARRAY[cardinality(p_ids)]);
  v_victims uuid[] := array_fill(NULL::uuid, ARRAY[cardinality(p_ids)]);
  -- Newcomers of this call that wait so far: later ones of it may displace them.
  v_new_interactive uuid[] := '{}';
  v_new_batch uuid[] := '{}';
  -- How far each lane has been searched for victims.
  v_seen_interactive bigint := 0;
  v_seen_batch bigint;
  v_urgent boolean;
  v_lane_full boolean;
  v_found record;
BEGIN
  SELECT p.draining, p.full_policy, p.queue_capacity INTO v_pool FROM pools p WHERE p.id = p_pool FOR NO KEY UPDATE;
  FOR v_lane IN
    SELECT l.priority, l.capacity, l.depth FROM queue_lanes l WHERE l.pool_id = p_pool ORDER BY l.priority FOR NO KEY UPDATE
  LOOP
    IF v_lane.priority = 'interactive' THEN
      v_interactive_capacity := v_lane.capacity; v_interactive := v_lane.depth;
    ELSE
      v_batch_capacity := v_lane.capacity; v_batch := v_lane.depth;
    END IF;
  END LOOP;
  v_seen_batch := CASE v_pool.full_policy WHEN 'drop-lru' THEN 0 ELSE 9223372036854775807 END;
  SELECT coalesce(array_agg(t.id), '{}') INTO v_known FROM unnest(p_ids) AS i(id) JOIN tasks t ON t.id = i.id;

  FOR k IN 1 .. CASE WHEN v_pool.draining THEN 0 ELSE cardinality(p_ids) END LOOP
    CONTINUE WHEN p_ids[k] = ANY(v_known);
    v_urgent := p_priorities[k] = 'interactive';
    v_lane_full := CASE WHEN v_urgent THEN v_interactive >= v_interactive_capacity ELSE v_batch >= v_batch_capacity END;
    IF v_lane_full OR v_interactive + v_batch >= v_pool.queue_capacity THEN
      -- core/queue's TaskQueue is the rule: a full lane makes room by itself alone, a full pool by the batch lane first.
      IF v_pool.full_policy = 'drop-lru' AND NOT (v_urgent AND v_lane_full) THEN
        SELECT f.id, f.queue_seq INTO v_found FROM queue_victim(p_pool, 'batch', true, v_seen_batch) f;
        IF FOUND THEN
          v_seen_batch := v_found.queue_seq;
          v_victims[k] := v_found.id;
        ELSIF cardinality(v_new_batch) > 0 THEN
          v_victims[k] := v_new_batch[1];
          v_new_batch := v_new_batch[2:];
        END IF;
      ELSIF v_pool.full_policy = 'shed-low-priority' AND v_urgent AND NOT v_lane_full THEN
        IF cardinality(v_new_batch) > 0 THEN
          v_victims[k] := v_new_batch[cardinality(v_new_batch)];
          v_new_batch := v_new_batch[:cardinality(v_new_batch) - 1];
        ELSE
          SELECT f.id, f.queue_seq INTO v_found FROM queue_victim(p_pool, 'batch', false, v_seen_batch) f;
          IF FOUND THEN
            v_seen_batch := v_found.queue_seq;
            v_victims[k] := v_found.id;
          END IF;
        END IF;
      END IF;
      IF v_victims[k] IS NOT NULL THEN
        v_batch := v_batch - 1;
      ELSIF v_pool.full_policy = 'drop-lru' AND v_urgent THEN
        SELECT f.id, f.queue_seq INTO v_found FROM queue_victim(p_pool, 'interactive', true, v_seen_interactive) f;
        IF FOUND THEN
          v_seen_interactive := v_found.queue_seq;
          v_victims[k] := v_found.id;
        ELSIF cardinality(v_new_interactive) > 0 THEN
          v_victims[k] := v_new_interactive[1];
          v_new_interactive := v_new_interactive[2:];
        END IF;
        CONTINUE WHEN v_victims[k] IS NULL;
        v_interactive := v_interactive - 1;
      ELSE
        CONTINUE;
      END IF;
    END IF;
    IF v_urgent THEN
      v_places[k] := v_interactive;
      v_interactive := v_interactive + 1;
      v_new_interactive := v_new_interactive || p_ids[k];
    ELSE
      v_places[k] := v_interactive + v_batch;
      v_batch := v_batch + 1;
      v_new_batch := v_new_batch || p_ids[k];
    END IF;
  END LOOP;

  WITH added AS (
    INSERT INTO tasks (id, session_id, pool_id, workload, priority, engine, model_ref, ctx, prompt, max_tokens, seed,
      determinism, kv_hint, sampler_profile_version, correlation_id, request_hash, placement, queue_position, start_basis,
      deadline_at, inputs, follows_pool, disconnect_grace_ms)
    SELECT i.id, i.session_id, p_pool, i.workload, i.priority, i.engine, i.model_ref, i.ctx, i.prompt, i.max_tokens, i.seed,
      i.determinism, i.kv_hint, i.sampler_profile_version, i.correlation_id, i.request_hash, i.placement,
      v_places[i.ord + 1], i.start_basis, now() + i.deadline_ms * interval '1 millisecond', i.inputs, i.follows_pool,
      i.disconnect_grace_ms
    FROM json_to_recordset(p_tasks) AS i(
      ord int, id uuid, session_id uuid, workload workload, priority priority, engine engine, model_ref text, ctx int,
      prompt text, max_tokens int, seed bigint, determinism determinism, kv_hint text, sampler_profile_version text,
      correlation_id text, request_hash text, placement jsonb, start_basis jsonb, deadline_ms bigint, inputs text[],
      follows_pool boolean, disconnect_grace_ms int)
    WHERE v_places[i.ord + 1] IS NOT NULL ORDER BY i.ord
    RETURNING tasks.session_id, tasks.priority
  ), counted AS (
    UPDATE queue_lanes l SET depth = l.depth + c.n
    FROM (SELECT a.priority, count(*)::int AS n FROM added a GROUP BY a.priority) c
    WHERE l.pool_id = p_pool AND l.priority = c.priority
  )
  INSERT INTO sessions (id, expires_at, turns)
  SELECT a.session_id, now() + p_session_ttl_ms * interval '1 millisecond', count(*)::int FROM added a
  GROUP BY a.session_id ORDER BY a.session_id
  ON CONFLICT (id) DO UPDATE SET
    turns = CASE WHEN sessions.expires_at > now() THEN sessions.turns ELSE 0 END + excluded.turns,
    expires_at = excluded.expires_at;

  IF num_nonnulls(VARIADIC v_victims) > 0 THEN
    PERFORM displace_tasks(array_remove(v_victims, NULL), p_displaced_error);
  END IF;
  RETURN QUERY
  SELECT (i.n - 1)::int,
    CASE WHEN i.place IS NOT NULL THEN 'admitted'
         WHEN t.id IS NOT NULL THEN CASE WHEN t.request_hash = i.hash THEN 'known' ELSE 'conflict' END
         WHEN v_pool.draining THEN 'draining' ELSE 'full' END,
    t.queue_position, t.start_basis,
    CASE WHEN v.id IS NOT NULL THEN jsonb_build_object('taskId', v.id, 'sessionId', v.session_id,
      'correlationId', v.correlation_id, 'engine', v.engine, 'modelRef', v.model_ref, 'priority', v.priority,
      'seed', v.seed::text) END
  FROM unnest(p_ids, p_hashes, v_places, v_victims) WITH ORDINALITY AS i(id, hash, place, victim, n)
  LEFT JOIN tasks t ON t.id = i.id LEFT JOIN tasks v ON v.id = i.victim
  ORDER BY i.n;
END $$;
