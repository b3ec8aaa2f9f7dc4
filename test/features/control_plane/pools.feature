Feature: Pools, as a client of the control plane sees them
  What is begun is answered at once with where to follow it; what cannot be begun is refused with the reason.

  Background:
    Given a control plane with the pools:
      | pool  | engine   | slots | ctx  | rps | speed |
      | chat  | llamacpp | 2     | 4096 | 50  | 60    |
      | other | vllm     | 3     | 8192 |     | 60    |

  @ORCH-3506
  Scenario: The health of a pool is told with its slots and leases
    Given "chat" is busy with "a"
    When I send GET "/v1/pools/chat/health"
    Then the answer is 200
    And the answer holds:
      | live                  | true  |
      | ready                 | true  |
      | draining              | false |
      | metrics.slots_total   | 2     |
      | metrics.active_leases | 1     |
    When I cancel "a"
    And I send GET "/v1/pools/chat/health"
    Then the answer holds:
      | metrics.active_leases | 0 |
    When I send GET "/v1/pools/nope/health"
    Then the answer is 404

  @OC-CTRL-2002 @ORCH-3505
  Scenario: A drain is accepted with where to follow it, work is refused from then on, and what runs may end
    Given "chat" is busy with "a"
    When I drain "chat" over REST within 60000 ms
    Then the answer is 202
    And the answer holds:
      | operation_id | /^[0-9a-f-]{36}$/ |
    And REST comes to tell of the operation:
      | pool_id                                  | chat      |
      | kind                                     | DRAIN     |
      | state                                    | RUNNING   |
      | steps[name=refuse_new_leases].state      | SUCCEEDED |
      | steps[name=wait_for_running_tasks].state | RUNNING   |
      | steps[name=force_stop].state             | PENDING   |
      | ended_at                                 | none      |
    When I try to submit "b" to "chat"
    Then the answer is 503
    And the answer has the headers:
      | retry-after | >= 1 |
    And the answer holds:
      | code      | POOL_UNAVAILABLE |
      | retriable | true             |
    And there is no task "b"
    When I send GET "/v1/pools/chat/health"
    Then the answer holds:
      | live                  | true  |
      | ready                 | false |
      | draining              | true  |
      | metrics.active_leases | 1     |
    When I drain "chat" over REST within 1000 ms
    Then the answer is 409
    And the answer holds:
      | field   | pool    |
      | message | /drain/ |
    When I reload "chat" over REST to "second-7b"
    Then the answer is 409
    When I cancel "a"
    Then REST comes to tell of the operation:
      | state                        | SUCCEEDED                                 |
      | progress                     | 1                                         |
      | steps[name=force_stop].state | SKIPPED                                   |
      | outcome                      | drained: 1 task finished, 0 force-stopped |
      | error                        | none                                      |
      | ended_at                     | /^20/                                     |
    When I resume "chat"
    Then the operation ends as SUCCEEDED
    When I submit "c" to "chat"
    Then "c" ends

  @OC-CTRL-2003 @ORCH-3031
  Scenario: A reload over REST gives the pool another model, or none and says why, and can be taken back
    When I reload "chat" over REST to "second-7b"
    Then the answer is 202
    And REST comes to tell of the operation:
      | pool_id | chat      |
      | kind    | RELOAD    |
      | state   | SUCCEEDED |
      | error   | none      |
    And the pool "chat" shows:
      | modelRef | second-7b |
      | ready    | true      |
    When I reload "chat" over REST to "-bad"
    Then the answer is 202
    And REST comes to tell of the operation:
      | state                       | ROLLED_BACK              |
      | outcome                     | /^still serving second-7b/ |
      | error.code                  | /\w/                     |
      | steps[name=roll_back].state | SUCCEEDED                |
    When I reload "chat" over REST to "chat-7b"
    Then REST comes to tell of the operation:
      | state | SUCCEEDED |
    And the pool "chat" shows:
      | modelRef | chat-7b |
      | ready    | true    |

  @OC-CTRL-2002 @OC-CTRL-2003
  Scenario: What cannot be begun is refused, and nothing is
    When I drain "nope" over REST within 1000 ms
    Then the answer is 404
    When I drain "chat" over REST within 0 ms
    Then the answer is 400
    And the answer holds:
      | code  | INVALID_PARAMS |
      | field | deadline_ms    |
    When I reload "nope" over REST to "second-7b"
    Then the answer is 404
    When I reload "chat" over REST to ""
    Then the answer is 400
    And the answer holds:
      | field | new_model_ref |
    When I register the model "past-7b"
    And I retire the model "past-7b"
    And I reload "chat" over REST to "past-7b"
    Then the answer is 410
    And the answer holds:
      | code | MODEL_DEPRECATED |
    When I send GET "/v1/operations/00000000-0000-0000-0000-000000000001"
    Then the answer is 404
    And the pool "chat" shows at once:
      | operation | none    |
      | ready     | true    |
      | modelRef  | chat-7b |
