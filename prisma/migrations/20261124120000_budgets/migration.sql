-- AlterTable
ALTER TABLE "sessions" ADD COLUMN     "life" BIGSERIAL NOT NULL,
ADD COLUMN     "limit_cost_micros" BIGINT,
ADD COLUMN     "limit_time_ms" BIGINT,
ADD COLUMN     "limit_tokens" BIGINT,
ADD COLUMN     "reserved_cost_micros" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "reserved_time_ms" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "reserved_tokens" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "spent_cost_micros" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "spent_time_ms" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "spent_tokens" BIGINT NOT NULL DEFAULT 0;

-- AlterTable
ALTER TABLE "tasks" ADD COLUMN     "budget_cost_micros" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "budget_life" BIGINT,
ADD COLUMN     "budget_price_micros" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "budget_prompt_tokens" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "budget_time_ms" BIGINT NOT NULL DEFAULT 0,
ADD COLUMN     "budget_tokens" BIGINT NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "session_evictions" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "session_id" UUID NOT NULL,
    "replica_id" TEXT NOT NULL,
    "slot" INTEGER NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "session_evictions_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "session_evictions_replica_id_idx" ON "session_evictions"("replica_id");

-- CreateIndex
CREATE INDEX "sessions_expires_at_idx" ON "sessions"("expires_at");

-- What follows is beyond Prisma's schema language, and the schema diff does not look at it.

-- Never more than the limit is spent and reserved, whoever writes.
ALTER TABLE "sessions" ADD CONSTRAINT "sessions_within_budget" CHECK (
  least(spent_tokens, reserved_tokens, spent_time_ms, reserved_time_ms, spent_cost_micros, reserved_cost_micros) >= 0
  AND spent_tokens + reserved_tokens <= coalesce(limit_tokens, 9223372036854775807)
  AND spent_time_ms + reserved_time_ms <= coalesce(limit_time_ms, 9223372036854775807)
  AND spent_cost_micros + reserved_cost_micros <= coalesce(limit_cost_micros, 9223372036854775807));

-- Turns what an ended task had reserved into what it has used, in the statement that ends it: as a task ends once, so does
-- this happen once, whoever ends it. core/budget says how much. A session that has gone since, or began anew under the same
-- id (another life), is owed nothing. Locks are taken in the order of all writers: lanes before sessions, so that one that
-- waited takes the lanes here, which the count of the depth would take after it.
CREATE FUNCTION "settle_budget"() RETURNS trigger LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  v_prompt bigint := least(NEW.budget_prompt_tokens,
    coalesce(NEW.tokens_in, CASE WHEN NEW.first_token_at IS NULL THEN 0 ELSE NEW.budget_prompt_tokens END));
  v_tokens bigint := v_prompt + NEW.tokens_out;
BEGIN
  IF OLD.status = 'QUEUED' THEN
    PERFORM 1 FROM queue_lanes l WHERE l.pool_id = NEW.pool_id ORDER BY l.priority FOR NO KEY UPDATE;
  END IF;
  UPDATE sessions s SET
    reserved_tokens = s.reserved_tokens - NEW.budget_tokens,
    spent_tokens = s.spent_tokens + least(NEW.budget_tokens, v_tokens),
    reserved_time_ms = s.reserved_time_ms - NEW.budget_time_ms,
    spent_time_ms = s.spent_time_ms + least(NEW.budget_time_ms, coalesce(NEW.decode_ms, 0)),
    reserved_cost_micros = s.reserved_cost_micros - NEW.budget_cost_micros,
    spent_cost_micros = s.spent_cost_micros
      + least(NEW.budget_cost_micros, (v_tokens * NEW.budget_price_micros + 999) / 1000)
  WHERE s.id = NEW.session_id AND s.life = NEW.budget_life;
  RETURN NULL;
END $$;
CREATE TRIGGER "tasks_settle_budget" AFTER UPDATE OF "status" ON "tasks" FOR EACH ROW
  WHEN (NEW.budget_life IS NOT NULL AND OLD.status IN ('QUEUED', 'LEASED', 'STREAMING')
    AND NEW.status IN ('SUCCEEDED', 'CANCELED', 'FAILED', 'DROPPED', 'EXPIRED'))
  EXECUTE FUNCTION "settle_budget"();

-- Reserves another slice of its session's time for a task that runs, or what is left of it. Fenced by the lease, like all
-- that a holder writes: 0 where its lease has gone. A session that has gone limits nothing. Each statement sees what the
-- lock before it waited for; in one statement the amount would be that of before.
CREATE FUNCTION "extend_budget_time"(p_task uuid, p_lease bigint, p_slice_ms bigint) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  v_task record;
  v_more bigint;
BEGIN
  SELECT t.session_id, t.budget_life INTO v_task FROM tasks t
    WHERE t.id = p_task AND t.lease_id = p_lease AND t.status IN ('LEASED', 'STREAMING') FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  PERFORM 1 FROM sessions s WHERE s.id = v_task.session_id AND s.life = v_task.budget_life FOR NO KEY UPDATE;
  SELECT least(p_slice_ms, coalesce(s.limit_time_ms - s.spent_time_ms - s.reserved_time_ms, p_slice_ms)) INTO v_more
    FROM sessions s WHERE s.id = v_task.session_id AND s.life = v_task.budget_life;
  IF NOT FOUND THEN
    RETURN p_slice_ms;
  ELSIF v_more <= 0 THEN
    RETURN 0;
  END IF;
  UPDATE sessions s SET reserved_time_ms = s.reserved_time_ms + v_more WHERE s.id = v_task.session_id;
  UPDATE tasks t SET budget_time_ms = t.budget_time_ms + v_more WHERE t.id = p_task;
  RETURN v_more;
END $$;

-- As before, but that what a victim has reserved is given back by who displaces it: one whose session somebody else has at
-- this moment is passed over, like one that is itself held.
CREATE OR REPLACE FUNCTION "queue_victim"(p_pool text, p_lane priority, p_oldest boolean, p_after bigint)
RETURNS TABLE (id uuid, queue_seq bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
  v_after bigint := p_after;
  v_found record;
BEGIN
  LOOP
    IF p_oldest THEN
      SELECT t.id, t.queue_seq, t.session_id, t.budget_life INTO v_found FROM tasks t
        WHERE t.pool_id = p_pool AND t.priority = p_lane AND t.status = 'QUEUED' AND t.attempts = 0 AND t.queue_seq > v_after
        ORDER BY t.queue_seq LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    ELSE
      SELECT t.id, t.queue_seq, t.session_id, t.budget_life INTO v_found FROM tasks t
        WHERE t.pool_id = p_pool AND t.priority = p_lane AND t.status = 'QUEUED' AND t.attempts = 0 AND t.queue_seq < v_after
        ORDER BY t.queue_seq DESC LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    EXIT WHEN NOT FOUND;
    IF v_found.budget_life IS NOT NULL THEN
      PERFORM 1 FROM sessions s WHERE s.id = v_found.session_id FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    IF FOUND OR NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = v_found.session_id AND s.life = v_found.budget_life) THEN
      RETURN QUERY SELECT v_found.id, v_found.queue_seq;
      RETURN;
    END IF;
    v_after := v_found.queue_seq;
  END LOOP;
END $$;

DROP FUNCTION "submit_tasks"(text, uuid[], priority[], text[], json, bigint, json);

-- What is left of each budget of a session, as core/budget's BudgetLeft; null: no limit.
CREATE FUNCTION "budget_left"(s sessions) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('tokens', s.limit_tokens - s.spent_tokens - s.reserved_tokens,
    'timeMs', s.limit_time_ms - s.spent_time_ms - s.reserved_time_ms,
    'costMicros', s.limit_cost_micros - s.spent_cost_micros - s.reserved_cost_micros)
$$;

-- NULL where the limit allows for the need; else core/budget's BudgetShort.
CREATE FUNCTION "budget_short"(p_kind text, p_limit bigint, p_spent bigint, p_reserved bigint, p_need bigint)
RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN p_spent + p_reserved + p_need > p_limit THEN
    jsonb_build_object('kind', p_kind, 'limit', p_limit, 'spent', p_spent, 'reserved', p_reserved, 'need', p_need) END
$$;

-- Admits a batch of tasks into one pool in one round trip, as if each had come alone, in their order; all or nothing per
-- task, and a displaced task ends in the same transaction that admits the one it makes room for.
-- The pool's row lock makes admissions of a pool one at a time on every node, so the bounds are exact; each statement sees
-- a fresh snapshot, taken after the lock. Both lanes are taken in the order that all writers keep, then the sessions in that
-- of their ids, and who has them waits for no waiting task: so no two writers wait for each other. Every input row gives
-- one output row:
--   outcome 'admitted' | 'known' (same id, same hash: the first receipt stands) | 'conflict' | 'full' | 'draining'
--     | 'turns' (its session has had its turns) | 'budget' (its session cannot pay for it);
--   displaced: what is to be told of the task that made room, or NULL;
--   short: with 'budget', which one and how much of it; budget: what its session has left, NULL where it has no budget.
-- p_rules: max_turns; tokens, time_ms, cost_micros, the limits of a new session, each may be null; price_micros of 1000
-- tokens; time_slice_ms, what a task reserves of the time at once. The arrays repeat what p_tasks holds: that is large, and
-- parsed once.
CREATE FUNCTION "submit_tasks"(p_pool text, p_ids uuid[], p_priorities priority[], p_hashes text[], p_tasks json,
  p_session_ttl_ms bigint, p_displaced_error json, p_sessions uuid[], p_prompt_tokens int[], p_max_tokens int[], p_rules json)
RETURNS TABLE (ord int, outcome text, queue_position int, start_basis jsonb, displaced jsonb, short jsonb, budget jsonb)
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
  v_max_turns int := (p_rules->>'max_turns')::int;
  v_price bigint := (p_rules->>'price_micros')::bigint;
  v_slice bigint := (p_rules->>'time_slice_ms')::bigint;
  v_expires_at timestamptz(3) := now() + p_session_ttl_ms * interval '1 millisecond';
  v_session_ids uuid[] := '{}';
  v_sessions sessions[] := '{}';
  v_session sessions%ROWTYPE;
  v_at int;
  v_touched uuid[] := '{}';
  -- Of each task: why its session refuses it, or what it reserves.
  v_refused text[] := array_fill(NULL::text, ARRAY[cardinality(p_ids)]);
  v_short jsonb[] := array_fill(NULL::jsonb, ARRAY[cardinality(p_ids)]);
  v_lives bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(p_ids)]);
  v_tokens bigint[] := array_fill(0::bigint, ARRAY[cardinality(p_ids)]);
  v_times bigint[] := array_fill(0::bigint, ARRAY[cardinality(p_ids)]);
  v_costs bigint[] := array_fill(0::bigint, ARRAY[cardinality(p_ids)]);
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

  IF NOT v_pool.draining AND (v_pool.full_policy <> 'reject' OR v_interactive + v_batch < v_pool.queue_capacity) THEN
    -- Makes the sessions that are missing, as expired ones, and locks all in one order. Nothing is written to those there.
    INSERT INTO sessions AS s (id, expires_at)
    SELECT DISTINCT i.session_id, now() - interval '1 second' FROM unnest(p_ids, p_sessions) AS i(id, session_id)
    WHERE NOT i.id = ANY(v_known) ORDER BY i.session_id
    ON CONFLICT (id) DO UPDATE SET expires_at = s.expires_at WHERE false;
  END IF;
  FOR v_session IN SELECT s.* FROM sessions s WHERE s.id = ANY(p_sessions) ORDER BY s.id LOOP
    IF v_session.expires_at <= now() THEN
      -- One that has expired is one that does not exist: this is another one, and tasks of the first are none of its own.
      v_session.life := nextval('sessions_life_seq');
      v_session.created_at := now();
      v_session.turns := 0;
      v_session.last_replica_id := NULL; v_session.last_slot := NULL; v_session.kv_until := NULL;
      v_session.limit_tokens := (p_rules->>'tokens')::bigint;
      v_session.limit_time_ms := (p_rules->>'time_ms')::bigint;
      v_session.limit_cost_micros := (p_rules->>'cost_micros')::bigint;
      v_session.spent_tokens := 0; v_session.spent_time_ms := 0; v_session.spent_cost_micros := 0;
      v_session.reserved_tokens := 0; v_session.reserved_time_ms := 0; v_session.reserved_cost_micros := 0;
    END IF;
    v_session_ids := v_session_ids || v_session.id;
    v_sessions := v_sessions || v_session;
  END LOOP;

  FOR k IN 1 .. CASE WHEN v_pool.draining THEN 0 ELSE cardinality(p_ids) END LOOP
    CONTINUE WHEN p_ids[k] = ANY(v_known);
    v_at := array_position(v_session_ids, p_sessions[k]);
    v_session := v_sessions[v_at];
    IF v_session.turns >= v_max_turns THEN
      v_refused[k] := 'turns';
      CONTINUE;
    END IF;
    IF num_nonnulls(v_session.limit_tokens, v_session.limit_time_ms, v_session.limit_cost_micros) > 0 THEN
      v_lives[k] := v_session.life;
      IF v_session.limit_tokens IS NOT NULL THEN
        v_tokens[k] := p_prompt_tokens[k]::bigint + p_max_tokens[k];
      END IF;
      IF v_session.limit_time_ms IS NOT NULL THEN
        v_times[k] := greatest(1,
          least(v_slice, v_session.limit_time_ms - v_session.spent_time_ms - v_session.reserved_time_ms));
      END IF;
      IF v_session.limit_cost_micros IS NOT NULL THEN
        v_costs[k] := ((p_prompt_tokens[k]::bigint + p_max_tokens[k]) * v_price + 999) / 1000;
      END IF;
      v_short[k] := budget_short('tokens', v_session.limit_tokens, v_session.spent_tokens, v_session.reserved_tokens, v_tokens[k]);
      v_short[k] := coalesce(v_short[k],
        budget_short('timeMs', v_session.limit_time_ms, v_session.spent_time_ms, v_session.reserved_time_ms, v_times[k]),
        budget_short('costMicros', v_session.limit_cost_micros, v_session.spent_cost_micros, v_session.reserved_cost_micros,
          v_costs[k]));
      IF v_short[k] IS NOT NULL THEN
        v_refused[k] := 'budget';
        CONTINUE;
      END IF;
    END IF;
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
    v_session.turns := v_session.turns + 1;
    v_session.expires_at := v_expires_at;
    v_session.reserved_tokens := v_session.reserved_tokens + v_tokens[k];
    v_session.reserved_time_ms := v_session.reserved_time_ms + v_times[k];
    v_session.reserved_cost_micros := v_session.reserved_cost_micros + v_costs[k];
    v_sessions[v_at] := v_session;
    v_touched := v_touched || v_session.id;
  END LOOP;

  WITH added AS (
    INSERT INTO tasks (id, session_id, pool_id, workload, priority, engine, model_ref, ctx, prompt, max_tokens, seed,
      determinism, kv_hint, sampler_profile_version, correlation_id, request_hash, placement, queue_position, start_basis,
      deadline_at, inputs, follows_pool, disconnect_grace_ms, budget_life, budget_tokens, budget_time_ms,
      budget_cost_micros, budget_prompt_tokens, budget_price_micros)
    SELECT i.id, i.session_id, p_pool, i.workload, i.priority, i.engine, i.model_ref, i.ctx, i.prompt, i.max_tokens, i.seed,
      i.determinism, i.kv_hint, i.sampler_profile_version, i.correlation_id, i.request_hash, i.placement,
      v_places[i.ord + 1], i.start_basis, now() + i.deadline_ms * interval '1 millisecond', i.inputs, i.follows_pool,
      i.disconnect_grace_ms, v_lives[i.ord + 1], v_tokens[i.ord + 1], v_times[i.ord + 1], v_costs[i.ord + 1],
      p_prompt_tokens[i.ord + 1], v_price
    FROM json_to_recordset(p_tasks) AS i(
      ord int, id uuid, session_id uuid, workload workload, priority priority, engine engine, model_ref text, ctx int,
      prompt text, max_tokens int, seed bigint, determinism determinism, kv_hint text, sampler_profile_version text,
      correlation_id text, request_hash text, placement jsonb, start_basis jsonb, deadline_ms bigint, inputs text[],
      follows_pool boolean, disconnect_grace_ms int)
    WHERE v_places[i.ord + 1] IS NOT NULL ORDER BY i.ord
    RETURNING tasks.priority
  )
  UPDATE queue_lanes l SET depth = l.depth + c.n
  FROM (SELECT a.priority, count(*)::int AS n FROM added a GROUP BY a.priority) c
  WHERE l.pool_id = p_pool AND l.priority = c.priority;

  UPDATE sessions s SET expires_at = n.expires_at, created_at = n.created_at, turns = n.turns, life = n.life,
    last_replica_id = n.last_replica_id, last_slot = n.last_slot, kv_until = n.kv_until,
    limit_tokens = n.limit_tokens, limit_time_ms = n.limit_time_ms, limit_cost_micros = n.limit_cost_micros,
    spent_tokens = n.spent_tokens, spent_time_ms = n.spent_time_ms, spent_cost_micros = n.spent_cost_micros,
    reserved_tokens = n.reserved_tokens, reserved_time_ms = n.reserved_time_ms,
    reserved_cost_micros = n.reserved_cost_micros
  FROM unnest(v_sessions) n WHERE s.id = n.id AND n.id = ANY(v_touched);

  IF num_nonnulls(VARIADIC v_victims) > 0 THEN
    PERFORM displace_tasks(array_remove(v_victims, NULL), p_displaced_error);
  END IF;
  RETURN QUERY
  SELECT (i.n - 1)::int,
    CASE WHEN i.place IS NOT NULL THEN 'admitted'
         WHEN t.id IS NOT NULL THEN CASE WHEN t.request_hash = i.hash THEN 'known' ELSE 'conflict' END
         WHEN v_pool.draining THEN 'draining' ELSE coalesce(i.refused, 'full') END,
    t.queue_position, t.start_basis,
    CASE WHEN v.id IS NOT NULL THEN jsonb_build_object('taskId', v.id, 'sessionId', v.session_id,
      'correlationId', v.correlation_id, 'engine', v.engine, 'modelRef', v.model_ref, 'priority', v.priority,
      'seed', v.seed::text) END,
    i.short,
    CASE WHEN s.id IS NOT NULL THEN budget_left(s) END
  FROM unnest(p_ids, p_hashes, v_places, v_victims, v_refused, v_short) WITH ORDINALITY
    AS i(id, hash, place, victim, refused, short, n)
  LEFT JOIN tasks t ON t.id = i.id LEFT JOIN tasks v ON v.id = i.victim
  LEFT JOIN sessions s ON s.id = t.session_id AND s.life = t.budget_life AND t.request_hash = i.hash
  ORDER BY i.n;
END $$;
