/** The business events of the doors: who was turned away, and who announced itself. */
import { SupervisionTelemetry } from './supervision.js';

export class DoorTelemetry extends SupervisionTelemetry {
  /** A request or a socket was turned away before anything looked at what it wants. */
  denied(reason: string, code: number, correlationId: string): void {
    this.metrics.requestsDenied.inc({ reason });
    this.log.warn(
      { correlation_id: correlationId, reason, code, human: `A caller was turned away: ${reason}.` },
      'request denied',
    );
  }

  /** A worker of the original system announced itself; nothing follows from it. */
  workerRegistered(worker: {
    readonly identity: string;
    readonly correlationId: string;
    readonly poolId: string | null;
    readonly replicaId: string | null;
  }): void {
    const { identity, correlationId, poolId, replicaId } = worker;
    this.log.info(
      {
        correlation_id: correlationId,
        identity,
        pool_id: poolId,
        replica_id: replicaId,
        human: 'A worker announced itself; engines here are started by their pools.',
      },
      'worker announced',
    );
  }
}
