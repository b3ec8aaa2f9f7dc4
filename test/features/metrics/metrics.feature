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

  @OC-CTRL-2052 @ORCH-33xx
  Scenario: A correlation id is echoed, or made, and stands in the log
    When I send GET "/v1/capabilities" with the headers:
      | X-Correlation-Id | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |
    Then the answer has the headers:
      | x-correlation-id | 7d1c4f5e-0b57-4f0a-9a53-5a8d5f6f1c22 |
    When I send GET "/v1/capabilities"
    Then the answer has the headers:
      | x-correlation-id | /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/ |
    When I submit "a" to "chat"
    Then "a" ends
    And a log line tells:
      | job_id         | {id of a} |
      | correlation_id | any       |

  @ORCH-3027 @ORCH-33xx
  Scenario: The log tells a run by its fields and in one plain sentence
    When I submit "a" to "chat" with:
      | seed | 11 |
    Then "a" ends
    And a log line tells:
      | job_id             | {id of a}              |
      | engine             | llamacpp               |
      | pool_id            | chat                   |
      | model_id           | chat-7b                |
      | queue_position     | 0                      |
      | predicted_start_ms | any                    |
      | human              | /^A .* task was admitted/ |
    And a log line tells:
      | job_id         | {id of a}               |
      | replica_id     | chat-0                  |
      | engine_version | any                     |
      | queue_time_ms  | any                     |
      | kv_warmth      | any                     |
      | human          | /^A task started on an engine/ |
    And a log line tells:
      | job_id         | {id of a}  |
      | tokens_in      | > 0        |
      | tokens_out     | 20         |
      | decode_time_ms | any        |
      | seed           | 11         |
      | human          | /^A stream ended/ |
