/** SQL that gives a session's next task the slot, or at least the replica, where its last one ran. */

/**
 * Pairs `next(id, n)` with `slots(replica_id, slot, n)` into `pairs(id, replica_id, slot)`. As many tasks as there are
 * slots get one each, by their order alone. Which one: that of the session's last task where it is offered, else one of
 * the same replica; all others take what is left, in order.
 */
export const PAIRS = `
due AS (
  SELECT next.id, next.n FROM next WHERE next.n <= (SELECT count(*) FROM slots)
), wanted AS (
  SELECT due.id, due.n, s.last_replica_id AS replica_id, s.last_slot AS slot
  FROM due JOIN tasks t ON t.id = due.id JOIN sessions s ON s.id = t.session_id
  WHERE s.kv_until > t.created_at AND s.expires_at > now() AND t.kv_hint IS DISTINCT FROM 'cold'
), same_slot AS (
  SELECT DISTINCT ON (slots.n) w.id, slots.n FROM wanted w JOIN slots USING (replica_id, slot) ORDER BY slots.n, w.n
), same_replica AS (
  SELECT w.id, o.n FROM (
    SELECT w.id, w.replica_id, row_number() OVER (PARTITION BY w.replica_id ORDER BY w.n) AS k
    FROM wanted w WHERE w.id NOT IN (SELECT id FROM same_slot)
  ) w JOIN (
    SELECT slots.n, slots.replica_id, row_number() OVER (PARTITION BY slots.replica_id ORDER BY slots.n) AS k
    FROM slots WHERE slots.n NOT IN (SELECT n FROM same_slot)
  ) o USING (replica_id, k)
), near AS (
  SELECT id, n FROM same_slot UNION ALL SELECT id, n FROM same_replica
), others AS (
  SELECT t.id, o.n FROM (
    SELECT due.id, row_number() OVER (ORDER BY due.n) AS k FROM due WHERE due.id NOT IN (SELECT id FROM near)
  ) t JOIN (
    SELECT slots.n, row_number() OVER (ORDER BY slots.n) AS k FROM slots WHERE slots.n NOT IN (SELECT n FROM near)
  ) o USING (k)
), pairs AS (
  SELECT p.id, slots.replica_id, slots.slot
  FROM (SELECT id, n FROM near UNION ALL SELECT id, n FROM others) p JOIN slots USING (n)
)`;
