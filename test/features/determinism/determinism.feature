Feature: Determinism
  The same request with the same seed says the same, on every replica, also after a loss.

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | devices | speed |
      | chat | 1     | 2        | 0, 1    | 60    |

  @ORCH-3045 @ORCH-3050
  Scenario: The same seed says the same on both replicas, another seed something else
    When I submit "a" and "b" to "chat" with:
      | seed | 42 |
    And I submit "c" to "chat" with:
      | seed | 43 |
    Then "a" and "b" said the same
    And "a" and "c" said different things
    And the task "a" shows:
      | receipt.claim.kind | BYTE_EXACT |
      | receipt.seed       | 42         |
      | receipt.chainHash  | any        |

  @ORCH-3050
  Scenario: A run that lost its engine goes on byte by byte
    When I submit "calm" to "chat" with:
      | seed       | 7  |
      | max_tokens | 60 |
    Then "calm" ends
    When I submit "shaken" to "chat" with:
      | seed       | 7  |
      | max_tokens | 60 |
    And "shaken" has streamed 10 tokens
    And the engine of "chat-0" is killed
    And the engine of "chat-1" is killed
    Then the stream of "shaken" is whole
    And "calm" and "shaken" said the same

  @OC-CTRL-2067
  Scenario Outline: Every task leaves a transcript, failures too: <fault>
    Given the engine of "chat-0" gets the fault "<fault>"
    And the engine of "chat-1" gets the fault "<fault>"
    When I submit "a" to "chat" with:
      | determinism | best_effort |
    Then the task "a" shows:
      | status             | <status>   |
      | transcript.kind    | TRACE      |
      | transcript.digest  | /^sha256:/ |
      | transcript.content | any        |
    And the engine of "chat-0" gets the fault "none"
    And the engine of "chat-1" gets the fault "none"

    Examples:
      | fault                  | status    |
      | none                   | SUCCEEDED |
      | error-frame-at-token:4 | FAILED    |
