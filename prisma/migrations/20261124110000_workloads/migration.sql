-- AlterTable
ALTER TABLE "replicas" ADD COLUMN     "workloads" TEXT[] DEFAULT ARRAY['completion']::TEXT[];
