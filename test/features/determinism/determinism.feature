Feature: Determinism
  The same request with the same seed says the same, on every replica, also after a loss.

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | devices | speed |
      | chat | 1     | 2        | 0, 1    | 60    |
    And the pool "chat" shows:
      | slotsFree | 2 |

  @ORCH-3045 @ORCH-3050
  Scenario: The same seed says the same on both replicas, another seed something else
    When I submit "a" to "chat" with:
      | seed | 42 |
    Then "a" ends
    And the pool "chat" shows:
      | slotsFree | 2 |
    Given "chat" is busy with "holder"
    When I submit "b" to "chat" with:
      | seed | 42 |
    And I submit "c" to "chat" with:
      | seed | 43 |
    Then "b" and "c" end
    And the task "a" shows:
      | replica.name       | chat-0     |
      | receipt.claim.kind | BYTE_EXACT |
      | receipt.seed       | 42         |
    And the task "b" shows:
      | replica.name       | chat-1     |
      | receipt.claim.kind | BYTE_EXACT |
    And "a" and "b" said the same
    And "a" and "b" agree in "receipt.chainHash"
    And "a" and "c" said different things
    And "a" and "c" differ in "receipt.chainHash"

  @ORCH-3050 @long
  Scenario: A run that lost its engine goes on byte by byte
    When I submit "calm" to "chat" with:
      | seed       | 7  |
      | max_tokens | 40 |
    Then "calm" ends
    And the pool "chat" shows:
      | slotsFree | 2 |
    Given the engine of "chat-0" gets the fault "crash-at-token:20"
    When I submit "shaken" to "chat" with:
      | seed       | 7  |
      | max_tokens | 40 |
    Then the stream of "shaken" is whole
    And "shaken" ends
    And the task "shaken" shows:
      | attempts     | 2      |
      | replica.name | chat-1 |
    And "calm" and "shaken" said the same
    And "calm" and "shaken" agree in "receipt.chainHash"
    And the replica "chat-0" shows:
      | state | READY |

  @OC-CTRL-2067
  Scenario: A task that fails leaves a transcript too
    Given the engine of "chat-0" gets the fault "error-frame-at-token:4"
    When I submit "a" to "chat" with:
      | determinism | best_effort      |
      | prompt      | a private matter |
    Then "a" ends as FAILED with INTERNAL
    And "a" leaves a transcript without "private" and with:
      | status     | FAILED   |
      | tokens_out | 4        |
      | error.code | INTERNAL |
      | replica_id | chat-0   |
    And the engine of "chat-0" gets the fault "none"
