// Generated from contracts/openapi/control.yaml by `npm run contracts`.
export interface paths {
    readonly "/health": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /**
         * Whether the process lives
         * @description Beyond the original contract files. It needs no token, and answers while the control plane starts and stops.
         */
        readonly get: operations["getHealth"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/metrics": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /**
         * Metrics for Prometheus
         * @description Beyond the original contract files.
         */
        readonly get: operations["getMetrics"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/pools/{id}/status": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /**
         * All facts of a pool
         * @description Beyond the original contract files.
         */
        readonly get: operations["getPoolStatus"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/ready": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /**
         * Whether a pool can take work
         * @description Beyond the original contract files. It needs no token.
         */
        readonly get: operations["getReadiness"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/artifacts": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Keeps a document under the digest of its content
         * @description The same content gives the same id.
         */
        readonly post: operations["createArtifact"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/artifacts/{id}": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /** A document */
        readonly get: operations["getArtifact"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/capabilities": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /** What the engines here can do */
        readonly get: operations["getCapabilities"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/catalog/models": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Enters a model
         * @description The id is new, or has the same body already; with another body it is refused with 409.
         */
        readonly post: operations["createCatalogModel"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/catalog/models/{id}": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /** A model of the catalog */
        readonly get: operations["getCatalogModel"];
        readonly put?: never;
        readonly post?: never;
        /** Takes a model out of the catalog */
        readonly delete: operations["deleteCatalogModel"];
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/catalog/models/{id}/state": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Retires a model, or takes it back into use
         * @description New tasks of a retired model are refused at once, with 410 MODEL_DEPRECATED; at the deadline the pools that serve it
         *     are drained.
         */
        readonly post: operations["setCatalogModelState"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/catalog/models/{id}/verify": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Checks a model against its digest and the trust policy
         * @description What is found is told: by the answer where it is quick, else by the model and the metrics.
         */
        readonly post: operations["verifyCatalogModel"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/operations/{id}": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /**
         * How far a drain or a reload is
         * @description An addition to the original contract.
         */
        readonly get: operations["getOperation"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/pools/{id}/drain": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Lets a pool finish its work and gives it no more
         * @description Running tasks may go on until the deadline, and are stopped then. The pool stays drained until it is resumed or
         *     reloaded. The body of the answer is an addition to the original contract.
         */
        readonly post: operations["drainPool"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/pools/{id}/health": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /** Whether a pool lives, is ready, is draining */
        readonly get: operations["getPoolHealth"];
        readonly put?: never;
        readonly post?: never;
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/pools/{id}/reload": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Gives a pool another model
         * @description All or nothing: whatever fails, the old model serves on. The body of the answer is an addition to the original
         *     contract.
         */
        readonly post: operations["reloadPool"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/workers/register": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Tells a worker who it is to us
         * @description Beyond the original contract files. It always needs a token.
         */
        readonly post: operations["registerWorker"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        readonly AccessError: {
            /** Format: int32 */
            readonly code: number;
            readonly error: string;
            readonly message: string;
            readonly retriable?: boolean;
        };
        readonly Artifact: {
            readonly content: {
                readonly [key: string]: unknown;
            };
            readonly kind: components["schemas"]["ArtifactKind"];
            readonly metadata?: {
                readonly [key: string]: unknown;
            };
            /** @description The id of the artifact that it was made from. */
            readonly parent?: string;
            readonly tags?: readonly string[];
        };
        /** @enum {string} */
        readonly ArtifactKind: "plan" | "summary" | "diff" | "trace" | "other";
        readonly ArtifactRef: {
            /** Format: int64 */
            readonly created_ms?: number | bigint;
            readonly digest?: string;
            readonly id: string;
            readonly kind: components["schemas"]["ArtifactKind"];
            readonly tags?: readonly string[];
        };
        readonly BadRequestError: components["schemas"]["ErrorEnvelope"] | components["schemas"]["AccessError"];
        readonly Capabilities: {
            readonly api_version: string;
            readonly engines: readonly components["schemas"]["EngineCapabilities"][];
        };
        readonly CatalogModel: {
            readonly digest: string;
            readonly id: string;
            readonly manifests?: readonly components["schemas"]["Manifest"][];
            readonly sbom?: components["schemas"]["SBOMRef"];
            readonly signatures?: readonly components["schemas"]["SignatureMeta"][];
            readonly source_url?: string;
            readonly tags?: readonly string[];
            readonly trust_policy?: components["schemas"]["TrustPolicy"];
        };
        readonly CatalogModelState: {
            /**
             * Format: int64
             * @description From now, ms.
             */
            readonly deadline_ms?: number | bigint;
            /** @enum {string} */
            readonly state: "Active" | "Retired";
        };
        readonly DrainRequest: {
            /**
             * Format: int64
             * @description From now, ms; at most a day.
             */
            readonly deadline_ms: number | bigint;
        };
        /** @enum {string} */
        readonly Engine: "llamacpp" | "vllm" | "tgi" | "triton";
        readonly EngineCapabilities: {
            /** Format: int32 */
            readonly ctx_max: number;
            readonly engine: components["schemas"]["Engine"];
            readonly features?: {
                readonly [key: string]: unknown;
            };
            /** @description By pool and priority, for each caller; what is not limited is left out. */
            readonly rate_limits?: {
                readonly [key: string]: {
                    readonly [key: string]: components["schemas"]["RateLimit"];
                };
            };
            readonly supported_workloads?: readonly components["schemas"]["Workload"][];
        };
        readonly ErrorEnvelope: {
            readonly code?: components["schemas"]["ErrorKind"];
            readonly engine?: components["schemas"]["Engine"];
            /** @description The member, parameter or header that is wrong. An addition to the original contract. */
            readonly field?: string;
            readonly message?: string;
            readonly policy_label?: string;
            readonly retriable?: boolean;
            /** Format: int64 */
            readonly retry_after_ms?: number | bigint;
        };
        /** @enum {string} */
        readonly ErrorKind: "ADMISSION_REJECT" | "QUEUE_FULL_DROP_LRU" | "INVALID_PARAMS" | "POOL_UNREADY" | "POOL_UNAVAILABLE" | "REPLICA_EXHAUSTED" | "DECODE_TIMEOUT" | "WORKER_RESET" | "INTERNAL" | "DEADLINE_UNMET" | "MODEL_DEPRECATED" | "UNTRUSTED_ARTIFACT";
        readonly Health: {
            /** @enum {string} */
            readonly status: "ok";
            readonly version: string;
        };
        readonly Manifest: {
            readonly digest?: string;
            /** Format: int64 */
            readonly size_bytes?: number | bigint;
        };
        /** @description Any members. */
        readonly Open: {
            readonly [key: string]: unknown;
        };
        readonly Operation: {
            /** Format: date-time */
            readonly created_at: string;
            /** Format: date-time */
            readonly ended_at: string | null;
            readonly error: {
                readonly code: string;
                readonly fix: string | null;
                readonly message: string;
            } | null;
            /** @enum {string} */
            readonly kind: "DRAIN" | "RESUME" | "RELOAD" | "RESTART";
            /** Format: uuid */
            readonly operation_id: string;
            readonly outcome: string | null;
            readonly pool_id: string;
            readonly progress: number;
            /** Format: date-time */
            readonly started_at: string | null;
            /** @enum {string} */
            readonly state: "PENDING" | "RUNNING" | "SUCCEEDED" | "ROLLED_BACK" | "FAILED" | "CANCELED";
            readonly steps: readonly components["schemas"]["OperationStep"][];
        };
        readonly OperationAccepted: {
            /** Format: uuid */
            readonly operation_id: string;
        };
        readonly OperationStep: {
            readonly detail: string | null;
            /** Format: date-time */
            readonly ended_at: string | null;
            readonly name: string;
            /** Format: date-time */
            readonly started_at: string | null;
            /** @enum {string} */
            readonly state: "PENDING" | "RUNNING" | "SUCCEEDED" | "FAILED" | "SKIPPED";
        };
        readonly PoolHealth: {
            readonly draining?: boolean;
            readonly live?: boolean;
            readonly metrics?: {
                readonly [key: string]: unknown;
            };
            readonly ready?: boolean;
        };
        readonly PoolStatus: {
            /** Format: int32 */
            readonly active_leases: number;
            readonly compute_capability?: string | null;
            readonly device_mask: string | null;
            readonly draining: boolean;
            readonly engine_version: string | null;
            readonly first_token_ms?: number | null;
            readonly last_error: string | null;
            /** Format: int64 */
            readonly last_heartbeat_ms?: number | null;
            readonly live: boolean;
            readonly pool_id: string;
            readonly ready: boolean;
            /** Format: int32 */
            readonly slots_free: number;
            /** Format: int32 */
            readonly slots_total: number;
            readonly tokens_per_second?: number | null;
            /** Format: int64 */
            readonly vram_free_bytes?: number | bigint;
            /** Format: int64 */
            readonly vram_total_bytes?: number | bigint;
        };
        readonly RateLimit: {
            /** @description How many may come at once. */
            readonly burst: number;
            readonly requests_per_second: number;
        };
        readonly Readiness: {
            readonly pools: readonly {
                readonly id: string;
                readonly ready: boolean;
                readonly reasons: readonly components["schemas"]["Reason"][];
            }[];
            /** @enum {string} */
            readonly status: "ready" | "not ready";
        };
        readonly ReadinessOrError: components["schemas"]["Readiness"] | components["schemas"]["ErrorEnvelope"];
        readonly Reason: {
            readonly code: string;
            readonly fix: string | null;
            readonly message: string;
        };
        readonly ReloadRequest: {
            readonly new_model_ref: string;
        };
        /** @description No operation answers with it; it stands here because the original contract has it. */
        readonly ReplicaSet: {
            readonly engine: components["schemas"]["Engine"];
            readonly id: string;
            /** Format: float */
            readonly load?: number;
            readonly slo?: {
                readonly [key: string]: unknown;
            };
            /** Format: int32 */
            readonly slots_free?: number;
            /** Format: int32 */
            readonly slots_total?: number;
        };
        readonly SBOMRef: {
            readonly digest?: string;
            readonly uri?: string;
        };
        readonly SignatureMeta: {
            readonly algo?: string;
            readonly signer?: string;
            /** Format: int64 */
            readonly timestamp_ms?: number | bigint;
            readonly verified?: boolean;
        };
        readonly TrustPolicy: {
            readonly allowed_registries?: readonly string[];
            readonly ca_roots?: readonly string[];
            /** @enum {string} */
            readonly mode?: "strict" | "permissive";
            readonly require_sbom?: boolean;
            readonly require_signature?: boolean;
        };
        readonly WorkerRegistered: {
            readonly identity: string;
            readonly ok: boolean;
            readonly pool_id: string | null;
            readonly replica_id: string | null;
        };
        readonly WorkerRegistration: {
            readonly pool_id?: string;
            readonly replica_id?: string;
        };
        /** @enum {string} */
        readonly Workload: "completion" | "embedding" | "rerank";
    };
    responses: {
        /** @description The request can never succeed as sent; `field` names the member. Or it is malformed as HTTP. */
        readonly BadRequest: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                readonly "application/json": components["schemas"]["BadRequestError"];
            };
        };
        /** @description It contradicts what stands already. An addition to the original contract. */
        readonly Conflict: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "code": "INVALID_PARAMS",
                 *       "message": "pool: a drain of pool sim is under way",
                 *       "field": "pool",
                 *       "retriable": false
                 *     }
                 */
                readonly "application/json": components["schemas"]["ErrorEnvelope"];
            };
        };
        /** @description The model is retired. The original contract leaves open whether this is 410 or 400; here it is 410. */
        readonly Deprecated: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "code": "MODEL_DEPRECATED",
                 *       "message": "model llama-7b is retired",
                 *       "retriable": false
                 *     }
                 */
                readonly "application/json": components["schemas"]["ErrorEnvelope"];
            };
        };
        /** @description Done. */
        readonly Done: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content?: never;
        };
        /** @description The request names another host, or comes from a page of another origin. */
        readonly Forbidden: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "code": 40303,
                 *       "error": "BAD_ORIGIN",
                 *       "message": "pages of another origin are refused",
                 *       "retriable": false
                 *     }
                 */
                readonly "application/json": components["schemas"]["AccessError"];
            };
        };
        /** @description Our fault; the log has more under the correlation id. */
        readonly Internal: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "code": "INTERNAL",
                 *       "message": "internal error",
                 *       "retriable": true
                 *     }
                 */
                readonly "application/json": components["schemas"]["ErrorEnvelope"];
            };
        };
        /** @description There is no such thing. An addition to the original contract. */
        readonly NotFound: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "code": "INVALID_PARAMS",
                 *       "message": "pool chat not found",
                 *       "field": "pool",
                 *       "retriable": false
                 *     }
                 */
                readonly "application/json": components["schemas"]["ErrorEnvelope"];
            };
        };
        /** @description The body is larger than 5 MiB; the connection is closed. An addition to the original contract. */
        readonly TooLarge: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "code": "INVALID_PARAMS",
                 *       "message": "body: must be at most 5242880 bytes",
                 *       "field": "body",
                 *       "retriable": false
                 *     }
                 */
                readonly "application/json": components["schemas"]["ErrorEnvelope"];
            };
        };
        /** @description A token is needed, and there is none or a wrong one. */
        readonly Unauthorized: {
            headers: {
                readonly "WWW-Authenticate": components["headers"]["Challenge"];
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                readonly "application/json": components["schemas"]["AccessError"];
            };
        };
        /** @description It cannot be served now. */
        readonly Unavailable: {
            headers: {
                readonly "Retry-After": components["headers"]["RetryAfter"];
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                readonly "application/json": components["schemas"]["ErrorEnvelope"];
            };
        };
        /** @description The body is not JSON by its own word. An addition to the original contract. */
        readonly UnsupportedMediaType: {
            headers: {
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "code": "INVALID_PARAMS",
                 *       "message": "body: must be application/json",
                 *       "field": "body",
                 *       "retriable": false
                 *     }
                 */
                readonly "application/json": components["schemas"]["ErrorEnvelope"];
            };
        };
    };
    parameters: {
        /**
         * @description The id of an artifact.
         * @example sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
         */
        readonly ArtifactId: string;
        /**
         * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
         * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
         */
        readonly CorrelationId: string;
        /**
         * @description The id of a model of the catalog.
         * @example llama-7b
         */
        readonly ModelId: string;
        /**
         * @description The id of an operation.
         * @example 6f1d7c52-0f6e-4a55-8d0a-5a3f6f9b7d10
         */
        readonly OperationId: string;
        /**
         * @description The id of a pool.
         * @example sim
         */
        readonly PoolId: string;
    };
    requestBodies: never;
    headers: {
        /**
         * @description The path of the artifact.
         * @example /v1/artifacts/sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
         */
        readonly ArtifactLocation: string;
        /**
         * @description What to send.
         * @example Bearer
         */
        readonly Challenge: string;
        /**
         * @description The one of the request, or a new UUIDv4.
         * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
         */
        readonly CorrelationId: string;
        /**
         * @description The path of the operation.
         * @example /v1/operations/6f1d7c52-0f6e-4a55-8d0a-5a3f6f9b7d10
         */
        readonly Location: string;
        /**
         * @description The path of the model.
         * @example /v1/catalog/models/llama-7b
         */
        readonly ModelLocation: string;
        /**
         * @description Seconds, as text.
         * @example 1
         */
        readonly RetryAfter: string;
    };
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    readonly getHealth: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description It lives. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "ok",
                     *       "version": "0.1.0"
                     *     }
                     */
                    readonly "application/json": components["schemas"]["Health"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 403: components["responses"]["Forbidden"];
        };
    };
    readonly getMetrics: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Prometheus text format. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example # TYPE tasks_enqueued_total counter
                     *     tasks_enqueued_total{engine="llamacpp",engine_version="",pool_id="sim",replica_id="",priority="batch"} 3
                     */
                    readonly "text/plain": string;
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly getPoolStatus: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a pool.
                 * @example sim
                 */
                readonly id: components["parameters"]["PoolId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The facts; null is what nobody knows. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "pool_id": "sim",
                     *       "live": true,
                     *       "ready": true,
                     *       "active_leases": 1,
                     *       "engine_version": "sim-1.0",
                     *       "draining": false,
                     *       "device_mask": "0,1",
                     *       "slots_total": 4,
                     *       "slots_free": 3,
                     *       "last_error": null,
                     *       "last_heartbeat_ms": 1795000000000,
                     *       "vram_total_bytes": 38654705664,
                     *       "vram_free_bytes": 36507222016,
                     *       "compute_capability": null,
                     *       "tokens_per_second": 51.2,
                     *       "first_token_ms": 12
                     *     }
                     */
                    readonly "application/json": components["schemas"]["PoolStatus"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly getReadiness: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description At least one pool is ready. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "ready",
                     *       "pools": [
                     *         {
                     *           "id": "sim",
                     *           "ready": true,
                     *           "reasons": []
                     *         }
                     *       ]
                     *     }
                     */
                    readonly "application/json": components["schemas"]["Readiness"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 500: components["responses"]["Internal"];
            /** @description No pool is ready; or the control plane starts or stops, and then says when to ask again. */
            readonly 503: {
                headers: {
                    /**
                     * @description Seconds, as text.
                     * @example 1
                     */
                    readonly "Retry-After"?: string;
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "not ready",
                     *       "pools": [
                     *         {
                     *           "id": "sim",
                     *           "ready": false,
                     *           "reasons": [
                     *             {
                     *               "code": "NO_REPLICA",
                     *               "message": "No replica of the pool is ready.",
                     *               "fix": "Look at its replicas."
                     *             }
                     *           ]
                     *         }
                     *       ]
                     *     }
                     */
                    readonly "application/json": components["schemas"]["ReadinessOrError"];
                };
            };
        };
    };
    readonly createArtifact: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                /**
                 * @example {
                 *       "kind": "plan",
                 *       "content": {
                 *         "steps": [
                 *           "read",
                 *           "write"
                 *         ]
                 *       },
                 *       "tags": [
                 *         "nightly"
                 *       ],
                 *       "parent": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                 *       "metadata": {
                 *         "author": "ci"
                 *       }
                 *     }
                 */
                readonly "application/json": components["schemas"]["Artifact"];
            };
        };
        readonly responses: {
            /** @description Kept. */
            readonly 201: {
                headers: {
                    readonly Location: components["headers"]["ArtifactLocation"];
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "kind": "plan",
                     *       "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "created_ms": 1795000000000,
                     *       "tags": [
                     *         "nightly"
                     *       ]
                     *     }
                     */
                    readonly "application/json": components["schemas"]["ArtifactRef"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 413: components["responses"]["TooLarge"];
            readonly 415: components["responses"]["UnsupportedMediaType"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly getArtifact: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of an artifact.
                 * @example sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
                 */
                readonly id: components["parameters"]["ArtifactId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The document. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "kind": "plan",
                     *       "content": {
                     *         "steps": [
                     *           "read",
                     *           "write"
                     *         ]
                     *       },
                     *       "tags": [
                     *         "nightly"
                     *       ],
                     *       "parent": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                     *       "metadata": {
                     *         "author": "ci"
                     *       }
                     *     }
                     */
                    readonly "application/json": components["schemas"]["Artifact"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly getCapabilities: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description One entry per kind of engine that a pool runs. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "api_version": "1.0.0",
                     *       "engines": [
                     *         {
                     *           "engine": "llamacpp",
                     *           "ctx_max": 4096,
                     *           "supported_workloads": [
                     *             "completion"
                     *           ],
                     *           "rate_limits": {
                     *             "sim": {
                     *               "batch": {
                     *                 "requests_per_second": 2,
                     *                 "burst": 2
                     *               }
                     *             }
                     *           },
                     *           "features": {
                     *             "concurrency": 4
                     *           }
                     *         }
                     *       ]
                     *     }
                     */
                    readonly "application/json": components["schemas"]["Capabilities"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly createCatalogModel: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                /**
                 * @example {
                 *       "id": "llama-7b",
                 *       "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                 *       "source_url": "file:///models/llama-7b.gguf",
                 *       "tags": [
                 *         "chat"
                 *       ],
                 *       "manifests": [
                 *         {
                 *           "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                 *           "size_bytes": 4368439584
                 *         }
                 *       ],
                 *       "signatures": [
                 *         {
                 *           "signer": "release@example.org",
                 *           "algo": "cosign",
                 *           "verified": false,
                 *           "timestamp_ms": 1795000000000
                 *         }
                 *       ],
                 *       "sbom": {
                 *         "uri": "https://example.org/llama-7b.spdx.json",
                 *         "digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
                 *       },
                 *       "trust_policy": {
                 *         "mode": "permissive",
                 *         "allowed_registries": [
                 *           "example.org"
                 *         ],
                 *         "require_signature": false,
                 *         "require_sbom": false,
                 *         "ca_roots": []
                 *       }
                 *     }
                 */
                readonly "application/json": components["schemas"]["CatalogModel"];
            };
        };
        readonly responses: {
            /** @description The model as it stands. */
            readonly 201: {
                headers: {
                    readonly Location: components["headers"]["ModelLocation"];
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "llama-7b",
                     *       "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "source_url": "file:///models/llama-7b.gguf",
                     *       "tags": [
                     *         "chat"
                     *       ],
                     *       "manifests": [
                     *         {
                     *           "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *           "size_bytes": 4368439584
                     *         }
                     *       ],
                     *       "signatures": [
                     *         {
                     *           "signer": "release@example.org",
                     *           "algo": "cosign",
                     *           "verified": false,
                     *           "timestamp_ms": 1795000000000
                     *         }
                     *       ],
                     *       "sbom": {
                     *         "uri": "https://example.org/llama-7b.spdx.json",
                     *         "digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
                     *       },
                     *       "trust_policy": {
                     *         "mode": "permissive",
                     *         "allowed_registries": [
                     *           "example.org"
                     *         ],
                     *         "require_signature": false,
                     *         "require_sbom": false,
                     *         "ca_roots": []
                     *       }
                     *     }
                     */
                    readonly "application/json": components["schemas"]["CatalogModel"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 409: components["responses"]["Conflict"];
            readonly 413: components["responses"]["TooLarge"];
            readonly 415: components["responses"]["UnsupportedMediaType"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly getCatalogModel: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a model of the catalog.
                 * @example llama-7b
                 */
                readonly id: components["parameters"]["ModelId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The model. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "llama-7b",
                     *       "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "source_url": "file:///models/llama-7b.gguf",
                     *       "tags": [
                     *         "chat"
                     *       ],
                     *       "manifests": [
                     *         {
                     *           "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *           "size_bytes": 4368439584
                     *         }
                     *       ],
                     *       "signatures": [
                     *         {
                     *           "signer": "release@example.org",
                     *           "algo": "cosign",
                     *           "verified": false,
                     *           "timestamp_ms": 1795000000000
                     *         }
                     *       ],
                     *       "sbom": {
                     *         "uri": "https://example.org/llama-7b.spdx.json",
                     *         "digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
                     *       },
                     *       "trust_policy": {
                     *         "mode": "permissive",
                     *         "allowed_registries": [
                     *           "example.org"
                     *         ],
                     *         "require_signature": false,
                     *         "require_sbom": false,
                     *         "ca_roots": []
                     *       }
                     *     }
                     */
                    readonly "application/json": components["schemas"]["CatalogModel"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly deleteCatalogModel: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a model of the catalog.
                 * @example llama-7b
                 */
                readonly id: components["parameters"]["ModelId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            readonly 204: components["responses"]["Done"];
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly setCatalogModelState: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a model of the catalog.
                 * @example llama-7b
                 */
                readonly id: components["parameters"]["ModelId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                /**
                 * @example {
                 *       "state": "Retired",
                 *       "deadline_ms": 60000
                 *     }
                 */
                readonly "application/json": components["schemas"]["CatalogModelState"];
            };
        };
        readonly responses: {
            /** @description Accepted. */
            readonly 202: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "llama-7b",
                     *       "state": "Retired"
                     *     }
                     */
                    readonly "application/json": components["schemas"]["Open"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 413: components["responses"]["TooLarge"];
            readonly 415: components["responses"]["UnsupportedMediaType"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly verifyCatalogModel: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a model of the catalog.
                 * @example llama-7b
                 */
                readonly id: components["parameters"]["ModelId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description It has begun, or is done. */
            readonly 202: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "started"
                     *     }
                     */
                    readonly "application/json": components["schemas"]["Open"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly getOperation: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of an operation.
                 * @example 6f1d7c52-0f6e-4a55-8d0a-5a3f6f9b7d10
                 */
                readonly id: components["parameters"]["OperationId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The operation. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "operation_id": "6f1d7c52-0f6e-4a55-8d0a-5a3f6f9b7d10",
                     *       "pool_id": "sim",
                     *       "kind": "DRAIN",
                     *       "state": "RUNNING",
                     *       "progress": 0.33,
                     *       "steps": [
                     *         {
                     *           "name": "refuse_new_leases",
                     *           "state": "SUCCEEDED",
                     *           "started_at": "2026-11-24T10:00:00.000Z",
                     *           "ended_at": "2026-11-24T10:00:00.010Z",
                     *           "detail": null
                     *         },
                     *         {
                     *           "name": "wait_for_running_tasks",
                     *           "state": "RUNNING",
                     *           "started_at": "2026-11-24T10:00:00.010Z",
                     *           "ended_at": null,
                     *           "detail": null
                     *         },
                     *         {
                     *           "name": "force_stop",
                     *           "state": "PENDING",
                     *           "started_at": null,
                     *           "ended_at": null,
                     *           "detail": null
                     *         }
                     *       ],
                     *       "created_at": "2026-11-24T10:00:00.000Z",
                     *       "started_at": "2026-11-24T10:00:00.000Z",
                     *       "ended_at": null,
                     *       "outcome": null,
                     *       "error": null
                     *     }
                     */
                    readonly "application/json": components["schemas"]["Operation"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly drainPool: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a pool.
                 * @example sim
                 */
                readonly id: components["parameters"]["PoolId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                /**
                 * @example {
                 *       "deadline_ms": 30000
                 *     }
                 */
                readonly "application/json": components["schemas"]["DrainRequest"];
            };
        };
        readonly responses: {
            /** @description It has begun; Location is where to follow it. */
            readonly 202: {
                headers: {
                    readonly Location: components["headers"]["Location"];
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "operation_id": "6f1d7c52-0f6e-4a55-8d0a-5a3f6f9b7d10"
                     *     }
                     */
                    readonly "application/json": components["schemas"]["OperationAccepted"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 409: components["responses"]["Conflict"];
            readonly 413: components["responses"]["TooLarge"];
            readonly 415: components["responses"]["UnsupportedMediaType"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly getPoolHealth: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a pool.
                 * @example sim
                 */
                readonly id: components["parameters"]["PoolId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Its health. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "live": true,
                     *       "ready": true,
                     *       "draining": false,
                     *       "metrics": {
                     *         "slots_total": 4,
                     *         "active_leases": 1
                     *       }
                     *     }
                     */
                    readonly "application/json": components["schemas"]["PoolHealth"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly reloadPool: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /**
                 * @description The id of a pool.
                 * @example sim
                 */
                readonly id: components["parameters"]["PoolId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                /**
                 * @example {
                 *       "new_model_ref": "sim-8b"
                 *     }
                 */
                readonly "application/json": components["schemas"]["ReloadRequest"];
            };
        };
        readonly responses: {
            /** @description It has begun; Location is where to follow it. */
            readonly 202: {
                headers: {
                    readonly Location: components["headers"]["Location"];
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "operation_id": "6f1d7c52-0f6e-4a55-8d0a-5a3f6f9b7d10"
                     *     }
                     */
                    readonly "application/json": components["schemas"]["OperationAccepted"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 404: components["responses"]["NotFound"];
            readonly 409: components["responses"]["Conflict"];
            readonly 410: components["responses"]["Deprecated"];
            readonly 413: components["responses"]["TooLarge"];
            readonly 415: components["responses"]["UnsupportedMediaType"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly registerWorker: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                /**
                 * @example {
                 *       "pool_id": "sim",
                 *       "replica_id": "sim-0"
                 *     }
                 */
                readonly "application/json": components["schemas"]["WorkerRegistration"];
            };
        };
        readonly responses: {
            /** @description The token is valid. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "ok": true,
                     *       "identity": "token:1a2b3c",
                     *       "pool_id": "sim",
                     *       "replica_id": "sim-0"
                     *     }
                     */
                    readonly "application/json": components["schemas"]["WorkerRegistered"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 413: components["responses"]["TooLarge"];
            readonly 415: components["responses"]["UnsupportedMediaType"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
}
