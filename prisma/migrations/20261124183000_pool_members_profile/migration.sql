-- Nodes that share a pool agree on all that makes its replicas stand for each other.
ALTER TABLE "pool_members" ADD COLUMN "quant" TEXT, ADD COLUMN "sampler_profile_version" TEXT;
