-- The transcript of a displaced task says what an embedding or rerank task was given, as those of other ends do.
CREATE OR REPLACE FUNCTION "displace_tasks"(p_ids uuid[], p_error json)
RETURNS void
LANGUAGE sql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_material = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
  WITH told AS (
    SELECT t.id, (jsonb_build_object('task_id', t.id, 'session_id', t.session_id, 'pool_id', t.pool_id, 'engine', t.engine,
      'model_ref', t.model_ref, 'seed', t.seed::text, 'determinism', t.determinism,
      'prompt', jsonb_build_object('redacted', true, 'characters', char_length(t.prompt)), 'attempts', t.attempts,
      'replica_id', NULL, 'run', NULL, 'status', 'DROPPED', 'finish_reason', 'displaced', 'tokens_out', 0, 'text', '',
      'error', p_error::jsonb) || CASE WHEN t.workload = 'completion' THEN '{}'::jsonb ELSE jsonb_build_object(
        'workload', t.workload, 'result', NULL, 'inputs', jsonb_build_object('redacted', true,
          'count', cardinality(t.inputs), 'characters', char_length(array_to_string(t.inputs, '')))) END)::text AS content
    FROM unnest(p_ids) AS i(id) JOIN tasks t ON t.id = i.id
  ), transcript AS (
    SELECT told.id, told.content, 'sha256:' || encode(sha256(convert_to(told.content, 'UTF8')), 'hex') AS artifact FROM told
  ), kept AS (
    INSERT INTO artifacts (id, kind, content, tags)
    SELECT tr.artifact, 'trace', tr.content::json, ARRAY['transcript'] FROM transcript tr ON CONFLICT (id) DO NOTHING
  ), done AS (
    UPDATE tasks t SET status = 'DROPPED', ended_at = clock_timestamp(), chunks = 1, error = p_error::jsonb,
      finish_reason = 'displaced', transcript_id = tr.artifact
    FROM transcript tr WHERE t.id = tr.id RETURNING t.id
  )
  INSERT INTO stream_chunks (task_id, ord, kind, first_seq, last_seq, payload, at)
  SELECT done.id, 0, 'error', 1, 1, json_build_object('error', p_error), clock_timestamp() FROM done;
$$;
