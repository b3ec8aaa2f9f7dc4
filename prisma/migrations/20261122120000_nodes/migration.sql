-- AlterTable
ALTER TABLE "leases" ADD COLUMN     "recalled_at" TIMESTAMPTZ(3);

-- AlterTable
ALTER TABLE "operations" ADD COLUMN     "node_id" UUID;

-- CreateTable
CREATE TABLE "nodes" (
    "id" UUID NOT NULL,
    "number" INTEGER NOT NULL,
    "url" TEXT NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL,
    "seen_at" TIMESTAMPTZ(3) NOT NULL,
    "stopped_at" TIMESTAMPTZ(3),

    CONSTRAINT "nodes_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "pool_members" (
    "pool_id" TEXT NOT NULL,
    "node_id" UUID NOT NULL,
    "engine" "engine" NOT NULL,
    "model_ref" TEXT NOT NULL,
    "context_length" INTEGER NOT NULL,
    "wall_ms" INTEGER NOT NULL,

    CONSTRAINT "pool_members_pkey" PRIMARY KEY ("pool_id","node_id")
);

-- DropIndex
DROP INDEX "replicas_pool_id_ordinal_key";

-- CreateIndex
CREATE UNIQUE INDEX "nodes_number_key" ON "nodes"("number");

-- CreateIndex
CREATE UNIQUE INDEX "replicas_pool_id_node_id_ordinal_key" ON "replicas"("pool_id", "node_id", "ordinal");

-- AddForeignKey
ALTER TABLE "pool_members" ADD CONSTRAINT "pool_members_pool_id_fkey" FOREIGN KEY ("pool_id") REFERENCES "pools"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "pool_members" ADD CONSTRAINT "pool_members_node_id_fkey" FOREIGN KEY ("node_id") REFERENCES "nodes"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- Nodes that have written here before, the one that did last first, so that it keeps the names of its replicas. None of
-- them runs now; one that does not come back is forgotten.
INSERT INTO "nodes" ("id", "number", "url", "started_at", "seen_at")
SELECT r."node_id", row_number() OVER (ORDER BY max(r."last_heartbeat_at") DESC NULLS LAST, r."node_id") - 1, '',
  to_timestamp(0), to_timestamp(0)
FROM "replicas" r WHERE r."node_id" IS NOT NULL AND NOT r."retired" GROUP BY r."node_id";
INSERT INTO "pool_members" ("pool_id", "node_id", "engine", "model_ref", "context_length", "wall_ms")
SELECT p."id", r."node_id", p."engine", p."model_ref", p."context_length", 600000
FROM "replicas" r JOIN "pools" p ON p."id" = r."pool_id" WHERE r."node_id" IS NOT NULL AND NOT r."retired"
GROUP BY p."id", r."node_id";
