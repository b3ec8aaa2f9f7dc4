-- AlterTable
ALTER TABLE "tasks" ADD COLUMN     "cancel_reason" TEXT;

-- CreateTable
CREATE TABLE "task_readers" (
    "task_id" UUID NOT NULL,
    "node_id" UUID NOT NULL,
    "gone_at" TIMESTAMPTZ(3),

    CONSTRAINT "task_readers_pkey" PRIMARY KEY ("task_id","node_id")
);

-- AddForeignKey
ALTER TABLE "task_readers" ADD CONSTRAINT "task_readers_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "tasks"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "task_readers" ADD CONSTRAINT "task_readers_node_id_fkey" FOREIGN KEY ("node_id") REFERENCES "nodes"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- What follows is beyond Prisma's schema language, and the schema diff does not look at it.

-- Waiting tasks that name a model: those of another one than their pool serves are found without reading the queue.
CREATE INDEX "tasks_queue_model" ON "tasks" ("pool_id", "model_ref") WHERE "status" = 'QUEUED' AND NOT "follows_pool";

-- Read every quarter second, and written for every reader that comes and goes: small, and best kept so.
ALTER TABLE "task_readers" SET (autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
