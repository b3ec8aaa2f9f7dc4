Feature: Metrics and logs

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @ORCH-3028 @OC-METRICS-7101
  Scenario: A task is counted from its admission to its end
    When I submit "a" to "chat"
    Then "a" ends
    And the metrics have grown by:
      | tasks_enqueued_total          | pool_id=chat, priority=interactive | 1  |
      | tasks_started_total           | pool_id=chat, replica_id=chat-0    | 1  |
      | tokens_out_total              | pool_id=chat, replica_id=chat-0    | 20 |
      | tokens_in_total               | pool_id=chat                       | > 0 |
      | latency_first_token_ms_count  | pool_id=chat                       | 1  |
      | latency_decode_ms_count       | pool_id=chat                       | 1  |
      | placement_decisions_total     | outcome=assigned, pinned=true      | 1  |

  @ORCH-3028
  Scenario: Cancels and refusals are counted by their reasons
    When I submit "a" to "chat" with:
      | max_tokens | 2000 |
    And "a" is streaming
    And I cancel "a"
    And I try to submit "b" to "chat" with:
      | ctx | 999999 |
    Then the metrics have grown by:
      | tasks_canceled_total | pool_id=chat, reason=client | 1 |
      | tasks_rejected_total | reason=INVALID_PARAMS       | 1 |
    And the metrics come to hold:
      | queue_depth | pool_id=chat, priority=interactive | 0 |

  @OC-METRICS-7101 @OC-METRICS-7102
  Scenario: Names and labels are a contract
    When I submit "a" to "chat"
    Then "a" ends
    And the metrics have the labels:
      | tasks_enqueued_total          | engine engine_version pool_id priority replica_id |
      | tasks_started_total           | engine engine_version pool_id priority replica_id |
      | tokens_in_total               | engine engine_version pool_id replica_id          |
      | tokens_out_total              | engine engine_version pool_id replica_id          |
      | queue_depth                   | engine engine_version pool_id priority            |
      | latency_first_token_ms        | engine engine_version pool_id priority            |
      | latency_decode_ms             | engine engine_version pool_id priority            |
      | vram_used_bytes               | device engine engine_version pool_id replica_id   |
      | placement_decisions_total     | fallback outcome pinned                           |

  @OC-CTRL-2052
  Scenario Outline: A correlation id is echoed, or made where none was sent: <what>
    When I send <method> "<path>" with the headers:
      | X-Correlation-Id | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |
    Then the answer is <status>
    And the answer has the headers:
      | x-correlation-id | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |
    When I send <method> "<path>"
    Then the answer has the headers:
      | x-correlation-id | /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/ |

    Examples:
      | what      | method | path                                                  | status |
      | an answer | GET    | /v1/capabilities                                      | 200    |
      | a refusal | POST   | /v1/tasks                                             | 400    |
      | no stream | GET    | /v1/tasks/00000000-0000-0000-0000-000000000001/stream | 404    |
      | GraphQL   | GET    | /graphql?query={__typename}                           | 200    |

  @OC-CTRL-2052
  Scenario: Every log line of a task has the correlation id of its request, and a stream has that of its own
    When I submit "a" to "chat" with:
      | X-Correlation-Id | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |
    Then the answer has the headers:
      | x-correlation-id | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |
    And "a" ends
    And every log line of "a" tells:
      | correlation_id | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |
    And the task "a" shows:
      | correlationId | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |

  @ORCH-3027 @ORCH-33xx
  Scenario: The log tells a run by its fields and in one plain sentence
    When I submit "a" to "chat" with:
      | seed                    | 11   |
      | sampler_profile_version | sp-1 |
    Then "a" ends
    And every log line of "a" tells:
      | session_id | {id of session of a} |
      | engine     | llamacpp             |
      | model_id   | chat-7b              |
      | pool_id    | chat                 |
      | human      | /^A [a-z]+ [^-]*\.$/ |
    And a log line tells:
      | job_id     | {id of a}                     |
      | msg        | task placed                   |
      | candidates | 1                             |
      | human      | /^A task found its place/     |
    And a log line tells:
      | job_id                  | {id of a}                 |
      | msg                     | task admitted             |
      | queue_position          | 0                         |
      | predicted_start_ms      | >= 0                      |
      | seed                    | 11                        |
      | sampler_profile_version | sp-1                      |
      | human                   | /^An? .* task was admitted/ |
    And a log line tells:
      | job_id                  | {id of a}                      |
      | msg                     | stream started                 |
      | replica_id              | chat-0                         |
      | engine_version          | /\w/                           |
      | queue_position          | 0                              |
      | predicted_start_ms      | >= 0                           |
      | queue_time_ms           | >= 0                           |
      | kv_warmth               | false                          |
      | sampler_profile_version | sp-1                           |
      | human                   | /^A task started on an engine/ |
    And a log line tells:
      | job_id                  | {id of a}         |
      | msg                     | stream ended      |
      | replica_id              | chat-0            |
      | engine_version          | /\w/              |
      | queue_position          | 0                 |
      | predicted_start_ms      | >= 0              |
      | queue_time_ms           | >= 0              |
      | tokens_in               | 9                 |
      | tokens_out              | 20                |
      | decode_time_ms          | > 0               |
      | kv_warmth               | false             |
      | seed                    | 11                |
      | sampler_profile_version | sp-1              |
      | human                   | /^A stream ended/ |

  @ORCH-3027 @ORCH-33xx
  Scenario: A cancel is logged in a sentence too, of a task that runs and of one that waits
    Given "chat" is busy with "running" and "other"
    When I submit "waiting" to "chat"
    And I cancel "waiting"
    And I cancel "running"
    Then a log line tells:
      | job_id  | {id of waiting}                |
      | pool_id | chat                           |
      | outcome | CANCELED                       |
      | human   | /^A waiting task was canceled/ |
    And a log line tells:
      | job_id     | {id of running}                |
      | replica_id | chat-0                         |
      | outcome    | CANCELED                       |
      | tokens_out | > 0                            |
      | human      | /^A running task was canceled/ |
