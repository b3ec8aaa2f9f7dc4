-- CreateEnum
CREATE TYPE "replica_health" AS ENUM ('LOADING', 'READY', 'SLOW', 'STALLED', 'DEAD');

-- CreateEnum
CREATE TYPE "breaker_state" AS ENUM ('CLOSED', 'OPEN', 'HALF_OPEN');

-- AlterTable
ALTER TABLE "replicas" ADD COLUMN     "model_ref" TEXT,
ADD COLUMN     "retired" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "health" "replica_health" NOT NULL DEFAULT 'LOADING',
ADD COLUMN     "breaker" "breaker_state" NOT NULL DEFAULT 'CLOSED',
ADD COLUMN     "preload" JSONB NOT NULL DEFAULT '[]',
ADD COLUMN     "kv_usage" DOUBLE PRECISION,
ADD COLUMN     "good_launch_args" JSONB;

-- Engines that run now were started with the model of their pool.
UPDATE "replicas" r SET "model_ref" = p."model_ref" FROM "pools" p WHERE p."id" = r."pool_id";

-- CreateTable
CREATE TABLE "crash_records" (
    "id" UUID NOT NULL,
    "pool_id" TEXT NOT NULL,
    "replica_id" TEXT NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL,
    "model_ref" TEXT NOT NULL,
    "engine_version" TEXT,
    "exit_code" INTEGER,
    "signal" TEXT,
    "fault" TEXT NOT NULL,
    "message" TEXT NOT NULL,
    "fix" TEXT,
    "last_lines" JSONB NOT NULL,
    "launch_args" JSONB,
    "flag_changes" JSONB NOT NULL,
    "ran_for_ms" DOUBLE PRECISION NOT NULL,
    "ready_for_ms" DOUBLE PRECISION,

    CONSTRAINT "crash_records_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "vram_peaks" (
    "model_key" TEXT NOT NULL,
    "flags_key" TEXT NOT NULL,
    "gpu_uuid" TEXT NOT NULL,
    "peak_bytes" BIGINT NOT NULL,
    "samples" INTEGER NOT NULL DEFAULT 1,
    "observed_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "vram_peaks_pkey" PRIMARY KEY ("model_key","flags_key","gpu_uuid")
);

-- CreateTable
CREATE TABLE "file_digests" (
    "node_id" UUID NOT NULL,
    "path" TEXT NOT NULL,
    "size_bytes" BIGINT NOT NULL,
    "mtime_ns" TEXT NOT NULL,
    "sha256" TEXT NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "file_digests_pkey" PRIMARY KEY ("node_id","path")
);

-- CreateTable
CREATE TABLE "prepared_engines" (
    "id" UUID NOT NULL,
    "node_id" UUID NOT NULL,
    "engine" "engine" NOT NULL,
    "mode" TEXT NOT NULL,
    "version" TEXT,
    "build_ref" TEXT NOT NULL,
    "digest" TEXT,
    "flags" TEXT[],
    "binary_path" TEXT,
    "image" TEXT,
    "prepared_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "prepared_engines_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "crash_records_replica_id_at_idx" ON "crash_records"("replica_id", "at");

-- CreateIndex
CREATE INDEX "crash_records_pool_id_at_idx" ON "crash_records"("pool_id", "at");

-- AddForeignKey
ALTER TABLE "crash_records" ADD CONSTRAINT "crash_records_pool_id_fkey" FOREIGN KEY ("pool_id") REFERENCES "pools"("id") ON DELETE CASCADE ON UPDATE CASCADE;
