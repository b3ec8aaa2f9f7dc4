Feature: Versions of engines
  Replicas that stand for each other run one version.

  @ORCH-3007 @ORCH-3046 @ORCH-3502 @own @long
  Scenario: An engine of another version stays out until the others have it too
    Given the program of the engines has the version "b1000"
    And a control plane with the pools:
      | pool | replicas | slots | devices | flags                           |
      | chat | 2        | 1     | 0, 1    | --version-file {path of engine} |
    Then the replica "chat-0" shows:
      | state         | READY |
      | engineVersion | b1000 |
    When the program of the engines has the version "b2000"
    And the engine of "chat-1" is killed
    Then the replica "chat-1" shows:
      | lastError.code                | ENGINE_VERSION_MIXED                             |
      | lastError.message             | /is version b2000, and chat-0 .* version b1000$/ |
      | lastError.fix                 | /reload the pool.*require_same_engine_version/   |
      | preload[name=identify].state  | FAILED                                           |
    And the pool "chat" has told:
      | replica_preload | /^preload failed .*b2000/ |
    And GET "/pools/chat/status" comes to hold:
      | ready          | true      |
      | engine_version | b1000     |
      | last_error     | /b2000/   |
    When I submit "a" and "b" to "chat"
    Then "a" and "b" end
    And the task "b" shows:
      | replica.name          | chat-0 |
      | receipt.engineVersion | b1000  |
    When I restart the replica "chat-0"
    Then the operation ends as SUCCEEDED
    And the replica "chat-0" shows:
      | state         | READY |
      | engineVersion | b2000 |
    And the replica "chat-1" shows:
      | state         | READY |
      | engineVersion | b2000 |
    And GET "/pools/chat/status" comes to hold:
      | engine_version | b2000 |
      | last_error     | none  |
