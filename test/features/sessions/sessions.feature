Feature: Sessions

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | devices | speed |
      | chat | 1     | 2        | 0, 1    | 60    |
    And the pool "chat" shows:
      | slotsFree | 2 |

  @ORCH-3021 @ORCH-3022
  Scenario: A session is made by its first task, counts its turns, and has eight of them
    When I submit "t1" to "chat" with:
      | session    | talk |
      | max_tokens | 2    |
    Then "t1" ends
    And the session "talk" shows:
      | turns            | 1         |
      | ttl_ms_remaining | > 0       |
      | ttlMsRemaining   | <= 600000 |
      | kv_bytes         | >= 0      |
      | kv_warmth        | true      |
    When I submit "t2", "t3", "t4", "t5", "t6", "t7" and "t8" to "chat" with:
      | session    | talk |
      | max_tokens | 2    |
    And I try to submit "t9" to "chat" with:
      | session    | talk |
      | max_tokens | 2    |
    Then the answer is 400
    And the answer holds:
      | code    | INVALID_PARAMS |
      | field   | session_id     |
      | message | /8 turns/      |
    And there is no task "t9"
    And the session "talk" shows:
      | turns | 8 |

  @ORCH-3023 @ORCH-3012 @OC-CORE-1017
  Scenario: A session goes back to the replica that ran it, though another one would come first, and is warm there
    Given "chat" is busy with "holder"
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    When I cancel "holder"
    Then the task "holder" shows:
      | replica.name | chat-0 |
    And the task "a" shows:
      | replica.name | chat-1 |
    And the pool "chat" shows:
      | slotsFree | 2 |
    When I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
    And the task "b" shows:
      | replica.name | chat-1 |
    And the stream of "b" has a "metrics" event with:
      | kv_warmth | true |
    And the session "talk" shows:
      | turns            | 2      |
      | kv_warmth        | true   |
      | lastReplica.name | chat-1 |

  @ORCH-3023 @OC-CORE-1017
  Scenario: Where its replica is busy it runs on another one at once, and cold
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    And the task "a" shows:
      | replica.name | chat-0 |
    And the pool "chat" shows:
      | slotsFree | 2 |
    Given "chat" is busy with "holder"
    When I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
    And the task "holder" shows:
      | replica.name | chat-0    |
      | status       | STREAMING |
    And the task "b" shows:
      | replica.name | chat-1 |
    And the stream of "b" has a "metrics" event with:
      | kv_warmth | false |
    And the session "talk" shows:
      | lastReplica.name | chat-1 |

  @ORCH-3023 @OC-CORE-1017
  Scenario: An engine that was started anew holds nothing of the session, and that is told
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    And the task "a" shows:
      | replica.name | chat-0 |
    When the engine of "chat-0" is killed
    Then the session "talk" shows:
      | kv_warmth | false |
    And the replica "chat-0" shows:
      | state | READY |
    When I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
    And the task "b" shows:
      | replica.name | chat-0 |
    And the stream of "b" has a "metrics" event with:
      | kv_warmth | false |

  @ORCH-3022
  Scenario: A session that is deleted is gone, and begins anew and cold under its id
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    And the session "talk" shows:
      | kv_warmth | true |
    When I delete the session "talk"
    Then the session "talk" is gone
    When I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
    And the session "talk" shows:
      | turns | 1 |
    And the stream of "b" has a "metrics" event with:
      | kv_warmth | false |

  @ORCH-3022
  Scenario: GraphQL deletes a session too
    When I submit "a" to "chat" with:
      | session    | talk |
      | max_tokens | 2    |
    Then "a" ends
    When I ask GraphQL:
      """
      mutation { deleteSession(input: { sessionId: "{id of session talk}" }) { __typename } }
      """
    Then the answer holds:
      | data.deleteSession.__typename | SessionDeleted |
    And the session "talk" is gone

  @ORCH-3021 @long
  Scenario: A session lives for so long after its last task and no longer
    Given the section "sessions":
      """
      ttl_ms: 700
      """
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    And the session "talk" is gone
    When I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
