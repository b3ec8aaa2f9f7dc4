-- AlterTable
ALTER TABLE "operations" ADD COLUMN     "revision" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "started_at" TIMESTAMPTZ(3);

-- Earlier operations began when they were asked for; their steps had no state and were taken one after another.
UPDATE "operations" SET "started_at" = "created_at", "steps" = (
  SELECT coalesce(jsonb_agg(jsonb_build_object(
    'name', replace(s.step ->> 'name', ' ', '_'),
    'state', CASE WHEN s.step ->> 'endedAtMs' IS NULL THEN 'FAILED' ELSE 'SUCCEEDED' END,
    'startedAtMs', s.step -> 'startedAtMs', 'endedAtMs', s.step -> 'endedAtMs', 'detail', NULL) ORDER BY s.place), '[]')
  FROM jsonb_array_elements("steps") WITH ORDINALITY AS s(step, place));
