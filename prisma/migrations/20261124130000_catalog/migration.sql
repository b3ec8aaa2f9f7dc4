-- CreateEnum
CREATE TYPE "model_state" AS ENUM ('Active', 'Retired');

-- CreateEnum
CREATE TYPE "staging_state" AS ENUM ('RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELED');

-- AlterTable
ALTER TABLE "artifacts" ADD COLUMN     "digest" TEXT,
ADD COLUMN     "metadata" JSON,
ADD COLUMN     "size_bytes" INTEGER NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "catalog_models" (
    "id" TEXT NOT NULL,
    "digest" TEXT NOT NULL,
    "source_url" TEXT,
    "tags" TEXT[],
    "manifests" JSONB NOT NULL,
    "signatures" JSONB NOT NULL,
    "sbom" JSONB,
    "trust_policy" JSONB,
    "state" "model_state" NOT NULL DEFAULT 'Active',
    "drain_at" TIMESTAMPTZ(3),
    "verification" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "catalog_models_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "model_stagings" (
    "id" UUID NOT NULL,
    "model_id" TEXT NOT NULL,
    "node_id" UUID NOT NULL,
    "state" "staging_state" NOT NULL DEFAULT 'RUNNING',
    "received_bytes" BIGINT NOT NULL DEFAULT 0,
    "total_bytes" BIGINT,
    "detail" TEXT,
    "path" TEXT,
    "error" JSONB,
    "cancel_requested_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "ended_at" TIMESTAMPTZ(3),

    CONSTRAINT "model_stagings_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "catalog_models_created_at_id_idx" ON "catalog_models"("created_at", "id");

-- CreateIndex
CREATE INDEX "model_stagings_model_id_created_at_id_idx" ON "model_stagings"("model_id", "created_at", "id");

-- CreateIndex
CREATE INDEX "artifacts_created_at_id_size_bytes_idx" ON "artifacts"("created_at", "id", "size_bytes");

-- CreateIndex
CREATE INDEX "artifacts_kind_created_at_id_idx" ON "artifacts"("kind", "created_at", "id");

-- CreateIndex
CREATE INDEX "artifacts_tags_idx" ON "artifacts" USING GIN ("tags") WITH (fastupdate = off);

-- AddForeignKey
ALTER TABLE "artifacts" ADD CONSTRAINT "artifacts_parent_fkey" FOREIGN KEY ("parent") REFERENCES "artifacts"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "model_stagings" ADD CONSTRAINT "model_stagings_model_id_fkey" FOREIGN KEY ("model_id") REFERENCES "catalog_models"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- Beyond Prisma's schema language. Hardly any artifact has a parent: transcripts have none.
CREATE INDEX "artifacts_children" ON "artifacts" ("parent", "created_at") WHERE "parent" IS NOT NULL;
CREATE UNIQUE INDEX "model_stagings_one_per_node" ON "model_stagings" ("model_id", "node_id") WHERE "state" = 'RUNNING';

-- Where retention begins: without these it would read whole tables to find their oldest rows.
CREATE INDEX "tasks_ended" ON "tasks" ("ended_at", "id") WHERE "ended_at" IS NOT NULL;
CREATE INDEX "leases_released" ON "leases" ("released_at") WHERE "released_at" IS NOT NULL;
CREATE INDEX "tasks_transcript" ON "tasks" ("transcript_id") WHERE "transcript_id" IS NOT NULL;
CREATE INDEX "tasks_result" ON "tasks" ("result_id") WHERE "result_id" IS NOT NULL;

-- Artifacts are written in several places, transcripts with the end of their task.
CREATE FUNCTION "measure_artifact"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.size_bytes := octet_length(NEW.content::text) + coalesce(octet_length(NEW.metadata::text), 0);
  RETURN NEW;
END $$;
CREATE TRIGGER "artifacts_measure" BEFORE INSERT ON "artifacts" FOR EACH ROW EXECUTE FUNCTION "measure_artifact"();
UPDATE "artifacts" SET "size_bytes" = octet_length("content"::text);
