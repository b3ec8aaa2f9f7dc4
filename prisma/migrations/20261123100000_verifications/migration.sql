-- CreateEnum
CREATE TYPE "verification_verdict" AS ENUM ('IDENTICAL', 'DIVERGED', 'NOT_COMPARABLE');

-- CreateTable
CREATE TABLE "task_verifications" (
    "id" UUID NOT NULL,
    "task_id" UUID NOT NULL,
    "rerun_id" UUID,
    "verdict" "verification_verdict",
    "findings" JSON,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "settled_at" TIMESTAMPTZ(3),

    CONSTRAINT "task_verifications_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "task_verifications_rerun_id_key" ON "task_verifications"("rerun_id");

-- CreateIndex
CREATE INDEX "task_verifications_task_id_created_at_idx" ON "task_verifications"("task_id", "created_at");

-- AddForeignKey
ALTER TABLE "task_verifications" ADD CONSTRAINT "task_verifications_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "tasks"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "task_verifications" ADD CONSTRAINT "task_verifications_rerun_id_fkey" FOREIGN KEY ("rerun_id") REFERENCES "tasks"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- Beyond Prisma's schema language: those that wait for their second run are looked through again and again.
CREATE INDEX "task_verifications_open" ON "task_verifications" ("created_at") WHERE "verdict" IS NULL;
