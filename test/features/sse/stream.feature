Feature: Streams
  started, then tokens, then one end; metrics stand between them.

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @OC-CTRL-2020 @OC-CTRL-2021 @OC-CTRL-2023 @OC-CTRL-2025
  Scenario: A stream starts, has every token once and in order, and ends once
    When I submit "a" to "chat"
    Then the stream of "a" is whole
    And the stream of "a" has the events "started token end"
    And the stream of "a" has the tokens 0 to 19
    And the stream of "a" has the "started" event with:
      | queue_position     | 0    |
      | predicted_start_ms | >= 0 |
    And the stream of "a" has the "end" event with:
      | tokens_out     | 20   |
      | decode_ms      | >= 0 |
      | decode_time_ms | >= 0 |

  @OC-CTRL-2022 @OC-CTRL-2034 @long
  Scenario: Metrics stand between the tokens and change nothing about them, and GraphQL tells the same
    When I submit "a" to "chat" with:
      | max_tokens | 3000 |
    And I listen to "a" over GraphQL
    Then the stream of "a" has had metrics between its tokens
    When I cancel "a"
    Then the stream of "a" is whole
    And the stream of "a" has a "metrics" event with:
      | queue_depth         | 0     |
      | kv_warmth           | false |
      | on_time_probability | any   |
    And GraphQL tells of "a" what REST tells

  @OC-CTRL-2024 @OC-CTRL-2028
  Scenario: A failure after the start is the last event of a stream
    Given the engine of "chat-0" gets the fault "error-frame-at-token:5"
    When I submit "a" to "chat" with:
      | determinism | best_effort |
    Then "a" ends as FAILED with INTERNAL
    And the stream of "a" is whole
    And the stream of "a" has the events "started token error"
    And the stream of "a" has the "error" event with:
      | code      | INTERNAL       |
      | message   | /\w/           |
      | retriable | /^(true\|false)$/ |
      | engine    | llamacpp       |
    And the engine of "chat-0" gets the fault "none"

  @OC-CTRL-2026
  Scenario: A reader that comes back gets exactly the rest, while the task runs and afterwards
    When I submit "a" to "chat" with:
      | max_tokens | 3000 |
    And "a" has streamed 5 tokens
    And the reader of "a" comes back after event 3
    And "a" has streamed 10 tokens
    Then the task "a" shows at once:
      | status | STREAMING |
    When I cancel "a"
    Then the stream of "a" goes on at token 3
    When I submit "b" to "chat"
    Then "b" ends
    When the reader of "b" comes back after event 18
    Then the stream of "b" has the tokens 18 to 19
    When the reader of "b" comes back after event 20
    Then the stream of "b" has the events "end"

  @OC-CTRL-2027
  Scenario: A cancel ends a stream with end
    When I submit "a" to "chat" with:
      | max_tokens | 2000 |
    And "a" has streamed 3 tokens
    And I cancel "a"
    Then the stream of "a" has the events "started token end"
    And the stream of "a" has the "end" event with:
      | canceled   | true |
      | tokens_out | >= 3 |

  @OC-CTRL-2029
  Scenario: A stream is an event stream, and carries the correlation id of its request
    When I submit "a" to "chat"
    And I send GET "/v1/tasks/{id of a}/stream" with the headers:
      | X-Correlation-Id | 3f8e3e54-6a4f-4f0e-9d58-2c1b2f0a7e11 |
    Then the answer is 200
    And the answer has the headers:
      | content-type     | /^text\/event-stream/                |
      | x-correlation-id | 3f8e3e54-6a4f-4f0e-9d58-2c1b2f0a7e11 |
