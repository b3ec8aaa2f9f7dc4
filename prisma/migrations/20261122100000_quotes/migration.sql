-- AlterTable
ALTER TABLE "sessions" ADD COLUMN     "kv_until" TIMESTAMPTZ(3),
ADD COLUMN     "last_replica_id" TEXT,
ADD COLUMN     "last_slot" INTEGER;

-- CreateTable
CREATE TABLE "quote_grades" (
    "task_id" UUID NOT NULL,
    "pool_id" TEXT NOT NULL,
    "priority" "priority" NOT NULL,
    "basis" TEXT NOT NULL,
    "sample_count" INTEGER NOT NULL,
    "p50_ms" INTEGER NOT NULL,
    "p90_ms" INTEGER NOT NULL,
    "actual_ms" INTEGER NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "quote_grades_pkey" PRIMARY KEY ("task_id")
);

-- CreateIndex
CREATE INDEX "quote_grades_pool_id_priority_basis_at_idx" ON "quote_grades"("pool_id", "priority", "basis", "at");

-- AddForeignKey
ALTER TABLE "quote_grades" ADD CONSTRAINT "quote_grades_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "tasks"("id") ON DELETE CASCADE ON UPDATE CASCADE;
