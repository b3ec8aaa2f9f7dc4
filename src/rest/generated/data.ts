// Generated from contracts/openapi/data.yaml by `npm run contracts`.
export interface paths {
    readonly "/v1/sessions/{id}": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /** What is known of a session */
        readonly get: operations["getSession"];
        readonly put?: never;
        readonly post?: never;
        /** Ends a session */
        readonly delete: operations["deleteSession"];
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/tasks": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Admits a task
         * @description The task is durable before this answers. The same task_id with the same body gives the same answer, however often;
         *     with another body it is refused with 409.
         */
        readonly post: operations["createTask"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/tasks/{id}/cancel": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly get?: never;
        readonly put?: never;
        /**
         * Cancels a task
         * @description When this answers, no further token follows, the ending is durable, and the engine was asked to stop. A task that is
         *     over stays as it is, and the answer is the same.
         */
        readonly post: operations["cancelTask"];
        readonly delete?: never;
        readonly options?: never;
        readonly head?: never;
        readonly patch?: never;
        readonly trace?: never;
    };
    readonly "/v1/tasks/{id}/stream": {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        /**
         * Streams the events of a task
         * @description `started`, then `token` events with gapless indices and `metrics` between them, then `end` or `error`, after which
         *     nothing comes. `id:` lines carry the resume index: a reader that hands back the last one it saw gets exactly the
         *     rest, while the task runs and afterwards. Once the stream has begun, an error is an event and the status stays 200.
         *     Comment lines keep the connection alive.
         */
        readonly get: operations["streamTask"];
        readonly put?: never;
        readonly post?: never;
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
        readonly AdmissionResponse: {
            /** Format: int64 */
            readonly backoff_ms: number | bigint;
            /**
             * Format: int64
             * @description From now, ms.
             */
            readonly predicted_start_ms: number | bigint;
            /** Format: int32 */
            readonly queue_position: number;
            /** Format: uuid */
            readonly task_id: string;
        };
        readonly BackpressureErrorEnvelope: components["schemas"]["ErrorEnvelope"] & Record<string, never>;
        readonly BadRequestError: components["schemas"]["ErrorEnvelope"] | components["schemas"]["AccessError"];
        /**
         * @description strict, where it is left out.
         * @enum {string}
         */
        readonly DeterminismLevel: "strict" | "best_effort";
        /** @enum {string} */
        readonly Engine: "llamacpp" | "vllm" | "tgi" | "triton";
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
        /** @enum {string} */
        readonly KVHint: "reuse" | "cold";
        /**
         * @description auto, where it is left out.
         * @enum {string}
         */
        readonly PlacementMode: "pin" | "prefer" | "auto";
        readonly PlacementOverrides: {
            /** @default true */
            readonly allow_fallback: boolean;
            readonly avoid_pools?: readonly string[];
            readonly mode?: components["schemas"]["PlacementMode"];
            readonly pin_pool_id?: string;
            readonly prefer_pools?: readonly string[];
            readonly require_device_mask?: string;
        };
        /** @enum {string} */
        readonly Priority: "interactive" | "batch";
        readonly SessionInfo: {
            /** Format: float */
            readonly cost_budget_remaining?: number;
            /** Format: int64 */
            readonly kv_bytes?: number | bigint;
            readonly kv_warmth?: boolean;
            /** Format: int64 */
            readonly time_budget_remaining_ms?: number | bigint;
            /** Format: int64 */
            readonly tokens_budget_remaining?: number | bigint;
            /** Format: int64 */
            readonly ttl_ms_remaining?: number | bigint;
            /** Format: int32 */
            readonly turns?: number;
        };
        /**
         * @example {
         *       "tokens_out": 12,
         *       "decode_ms": 240,
         *       "decode_time_ms": 240
         *     }
         */
        readonly SSEEnd: {
            /** @description true, where a cancel ended the task; else left out. */
            readonly canceled?: boolean;
            /** Format: int64 */
            readonly decode_ms: number | bigint;
            /**
             * Format: int64
             * @description The same as decode_ms.
             */
            readonly decode_time_ms?: number | bigint;
            /** @description budget, where the budget of the session ended the task. */
            readonly finish_reason?: string;
            /** @description Of an embedding or a rerank task. */
            readonly result?: unknown;
            /** Format: int32 */
            readonly tokens_out: number;
        };
        /**
         * @example {
         *       "code": "WORKER_RESET",
         *       "message": "the engine ended",
         *       "engine": "llamacpp",
         *       "retriable": true,
         *       "retry_after_ms": 1000
         *     }
         */
        readonly SSEError: {
            readonly code: components["schemas"]["ErrorKind"];
            readonly engine?: components["schemas"]["Engine"];
            readonly message: string;
            readonly retriable?: boolean;
            /** Format: int64 */
            readonly retry_after_ms?: number | bigint;
        };
        /**
         * @description What is not known is left out.
         * @example {
         *       "queue_depth": 2,
         *       "kv_warmth": false,
         *       "on_time_probability": 0.98
         *     }
         */
        readonly SSEMetrics: {
            /** Format: float */
            readonly cost_budget_remaining?: number;
            readonly kv_warmth?: boolean;
            /** Format: float */
            readonly on_time_probability?: number;
            /** Format: int32 */
            readonly queue_depth?: number;
            /** Format: int64 */
            readonly time_budget_remaining_ms?: number | bigint;
            /** Format: int64 */
            readonly tokens_budget_remaining?: number | bigint;
        } & {
            readonly [key: string]: unknown;
        };
        /**
         * @example {
         *       "queue_position": 0,
         *       "predicted_start_ms": 12
         *     }
         */
        readonly SSEStarted: {
            /** Format: int64 */
            readonly predicted_start_ms: number | bigint;
            /** Format: int32 */
            readonly queue_position: number;
        };
        /**
         * @example {
         *       "t": "Hello",
         *       "i": 0
         *     }
         */
        readonly SSEToken: {
            /**
             * Format: int32
             * @description From 0, gapless.
             */
            readonly i: number;
            readonly t: string;
        };
        /**
         * @description Consecutive tokens in one event, with ORCHD_SSE_MICROBATCH=1 only.
         * @example {
         *       "batch": [
         *         {
         *           "t": "Hello",
         *           "i": 0
         *         },
         *         {
         *           "t": " you",
         *           "i": 1
         *         }
         *       ]
         *     }
         */
        readonly SSETokenBatch: {
            readonly batch: readonly components["schemas"]["SSEToken"][];
        };
        readonly SSETokens: components["schemas"]["SSEToken"] | components["schemas"]["SSETokenBatch"];
        readonly TaskRequest: {
            /**
             * Format: int32
             * @description The context that the task needs, in tokens.
             */
            readonly ctx: number;
            /**
             * Format: int64
             * @description From now, ms; at most a week.
             */
            readonly deadline_ms: number | bigint;
            readonly determinism?: components["schemas"]["DeterminismLevel"];
            readonly engine: components["schemas"]["Engine"];
            /** Format: int32 */
            readonly expected_tokens?: number;
            /** @description The texts of an embedding or a rerank. */
            readonly inputs?: readonly string[];
            readonly kv_hint?: components["schemas"]["KVHint"];
            /**
             * Format: int32
             * @description At least 1, for a completion.
             */
            readonly max_tokens: number;
            readonly model_ref: string;
            /** @description A hint: text, json or edits. */
            readonly output_mode?: unknown;
            readonly placement?: components["schemas"]["PlacementOverrides"];
            readonly priority: components["schemas"]["Priority"];
            /** @description Of a completion, empty where it is left out; of a rerank, the query. */
            readonly prompt?: string;
            readonly sampler_profile_version?: string;
            /**
             * Format: int64
             * @description Derived from task_id, where it is left out.
             */
            readonly seed?: number | bigint;
            /**
             * Format: uuid
             * @description The session is created with its first task.
             */
            readonly session_id: string;
            /** Format: uuid */
            readonly task_id: string;
            readonly workload: components["schemas"]["Workload"];
        };
        /** @enum {string} */
        readonly Workload: "completion" | "embedding" | "rerank";
    };
    responses: {
        /** @description Come back later. */
        readonly Backpressure: {
            headers: {
                readonly "Retry-After": components["headers"]["RetryAfter"];
                readonly "X-Backoff-Ms": components["headers"]["BackoffMs"];
                readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                readonly [name: string]: unknown;
            };
            content: {
                readonly "application/json": components["schemas"]["BackpressureErrorEnvelope"];
            };
        };
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
                 *       "message": "task_id: the task exists already with another body",
                 *       "field": "task_id",
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
                 *       "message": "task 00000000-0000-0000-0000-000000000009 not found",
                 *       "field": "task_id",
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
         * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
         * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
         */
        readonly CorrelationId: string;
        /** @example 00000000-0000-0000-0000-000000000002 */
        readonly SessionId: string;
        /** @example 00000000-0000-0000-0000-000000000001 */
        readonly TaskId: string;
    };
    requestBodies: never;
    headers: {
        /**
         * @description The same in ms, and not rounded.
         * @example 1250
         */
        readonly BackoffMs: number | bigint;
        /**
         * @description What the session may still cost.
         * @example 1.25
         */
        readonly BudgetCostRemaining: number;
        /**
         * @description Decoding time that the session may still use, ms.
         * @example 60000
         */
        readonly BudgetTimeRemainingMs: number | bigint;
        /**
         * @description Tokens that the session may still use; left out where nothing limits them.
         * @example 9000
         */
        readonly BudgetTokensRemaining: number | bigint;
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
         * @description Seconds, as text.
         * @example 2
         */
        readonly RetryAfter: string;
    };
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    readonly getSession: {
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
                /** @example 00000000-0000-0000-0000-000000000002 */
                readonly id: components["parameters"]["SessionId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The session. A budget that is not limited is left out. */
            readonly 200: {
                headers: {
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "ttl_ms_remaining": 598000,
                     *       "turns": 2,
                     *       "kv_bytes": 0,
                     *       "kv_warmth": true,
                     *       "tokens_budget_remaining": 9000,
                     *       "time_budget_remaining_ms": 60000,
                     *       "cost_budget_remaining": 1.25
                     *     }
                     */
                    readonly "application/json": components["schemas"]["SessionInfo"];
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
    readonly deleteSession: {
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
                /** @example 00000000-0000-0000-0000-000000000002 */
                readonly id: components["parameters"]["SessionId"];
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
    readonly createTask: {
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
                readonly "application/json": components["schemas"]["TaskRequest"];
            };
        };
        readonly responses: {
            /** @description Admitted; it waits, or runs already. */
            readonly 202: {
                headers: {
                    readonly "X-Budget-Cost-Remaining": components["headers"]["BudgetCostRemaining"];
                    readonly "X-Budget-Time-Remaining-Ms": components["headers"]["BudgetTimeRemainingMs"];
                    readonly "X-Budget-Tokens-Remaining": components["headers"]["BudgetTokensRemaining"];
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "task_id": "00000000-0000-0000-0000-000000000001",
                     *       "queue_position": 3,
                     *       "predicted_start_ms": 420,
                     *       "backoff_ms": 0
                     *     }
                     */
                    readonly "application/json": components["schemas"]["AdmissionResponse"];
                };
            };
            readonly 400: components["responses"]["BadRequest"];
            readonly 401: components["responses"]["Unauthorized"];
            readonly 403: components["responses"]["Forbidden"];
            readonly 409: components["responses"]["Conflict"];
            readonly 410: components["responses"]["Deprecated"];
            readonly 413: components["responses"]["TooLarge"];
            readonly 415: components["responses"]["UnsupportedMediaType"];
            readonly 429: components["responses"]["Backpressure"];
            readonly 500: components["responses"]["Internal"];
            readonly 503: components["responses"]["Unavailable"];
        };
    };
    readonly cancelTask: {
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
                /** @example 00000000-0000-0000-0000-000000000001 */
                readonly id: components["parameters"]["TaskId"];
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
    readonly streamTask: {
        readonly parameters: {
            readonly query?: {
                /**
                 * @description The same, for clients that cannot set headers.
                 * @example 17
                 */
                readonly after?: number;
                /**
                 * @description Ends the task when its last reader has been gone for so long, in ms; `true` stands for a grace of 5 s. Without it
                 *     a task outlives its readers.
                 * @example 2000
                 */
                readonly cancel_on_disconnect?: string;
            };
            readonly header?: {
                /**
                 * @description The last `id:` that was seen; -1 is the beginning. It wins over `after`.
                 * @example 17
                 */
                readonly "Last-Event-ID"?: number;
                /**
                 * @description Names the request in logs and answers. One that is no 1 to 128 printable ASCII characters is replaced.
                 * @example 4f2b6c1e-3a57-4c9a-9d0e-1f6a2b7c8d9e
                 */
                readonly "X-Correlation-Id"?: components["parameters"]["CorrelationId"];
            };
            readonly path: {
                /** @example 00000000-0000-0000-0000-000000000001 */
                readonly id: components["parameters"]["TaskId"];
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The events, as Server-Sent Events. The data of each is one line of JSON. */
            readonly 200: {
                headers: {
                    readonly "X-Budget-Cost-Remaining": components["headers"]["BudgetCostRemaining"];
                    readonly "X-Budget-Time-Remaining-Ms": components["headers"]["BudgetTimeRemainingMs"];
                    readonly "X-Budget-Tokens-Remaining": components["headers"]["BudgetTokensRemaining"];
                    readonly "X-Correlation-Id": components["headers"]["CorrelationId"];
                    readonly [name: string]: unknown;
                };
                content: {
                    /**
                     * @example event: started
                     *     id: 0
                     *     data: {"queue_position":0,"predicted_start_ms":12}
                     *
                     *     event: token
                     *     id: 1
                     *     data: {"t":"Hello","i":0}
                     *
                     *     event: metrics
                     *     data: {"queue_depth":0,"kv_warmth":false}
                     *
                     *     event: end
                     *     id: 2
                     *     data: {"tokens_out":1,"decode_ms":9,"decode_time_ms":9}
                     */
                    readonly "text/event-stream": string;
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
}
