Feature: Preload
  A pool serves only after its engines have shown that they can.

  Background:
    Given a control plane with the pools:
      | pool  | vram GiB | replicas | devices | faults      | ready |
      | good  | 1        | 1        | 0       |             | yes   |
      | big   | 30       | 1        | 0       |             | no    |
      | full  | 1        | 1        | 0       | oom-at-load | no    |
      | deaf  | 1        | 1        | 1       | never-ready | no    |
      | other | 1        | 1        | 1       | other-model | no    |
      | mute  | 1        | 1        | 1       | error-frame-at-token:0 | no |

  @ORCH-3001
  Scenario: An engine is one process with one model on one device mask
    Then the replica "good-0" shows:
      | deviceMask                              | 0                 |
      | modelRef                                | good-7b           |
      | modelId                                 | good-7b           |
      | preload[name=start_engine].detail       | /^process \d+$/   |

  @ORCH-3002 @ORCH-3504 @OC-POOL-3001 @ORCH-3049
  Scenario: Ready comes after every step, the decoding of a token among them
    Then the replica "good-0" shows:
      | preload[name=check_model].startedAt | /^\d{4}-\d\d-\d\dT/ |
      | preload[name=decode].startedAt      | /^\d{4}-\d\d-\d\dT/ |
      | preload[name=decode].endedAt        | /^\d{4}-\d\d-\d\dT/ |
      | preload[name=metrics].endedAt       | /^\d{4}-\d\d-\d\dT/ |
    And the replica "good-0" shows:
      | state           | READY |
      | preload.*.name  | check_model, reserve_memory, start_engine, wait_until_ready, check_device, identify, decode, cancel, metrics |
      | preload.*.state | SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED |
    And the pool "good" has told since it was made:
      | replica_preload | /^preload passed after \d+ ms$/ |

  @ORCH-3002 @OC-POOL-3001
  Scenario: A process that is up and not healthy does not make a pool ready
    Then the replica "deaf-0" shows:
      | preload[name=start_engine].state     | SUCCEEDED |
      | preload[name=wait_until_ready].state | RUNNING   |
    And the pool "deaf" shows:
      | ready                | false   |
      | notReadyBecause.*.code | LOADING |

  @ORCH-3002 @ORCH-3504 @ORCH-3049 @OC-POOL-3001
  Scenario: An engine that is healthy and decodes nothing does not make a pool ready
    Then the replica "mute-0" shows:
      | preload.*.name                       | check_model, reserve_memory, start_engine, wait_until_ready, check_device, identify, decode |
      | preload[name=wait_until_ready].state | SUCCEEDED |
      | preload[name=identify].state         | SUCCEEDED |
      | preload[name=decode].state           | FAILED    |
      | preload[name=decode].endedAt         | /^\d{4}-\d\d-\d\dT/ |
    And the pool "mute" shows:
      | ready | false |
    And the pool "mute" has told:
      | replica_preload | /^preload failed/ |

  @ORCH-3049
  Scenario: An engine that serves another model does not make a pool ready
    Then the pool "other" shows:
      | ready          | false       |
      | lastError.code | WRONG_MODEL |
      | lastError.fix  | any         |

  @ORCH-3500 @ORCH-3501 @ORCH-3502 @ORCH-3003 @OC-POOL-3002
  Scenario: A model that its GPU cannot hold is refused before a process is started
    Then the pool "big" shows:
      | ready             | false                        |
      | live              | false                        |
      | lastError.code    | VRAM_INSUFFICIENT            |
      | lastError.message | /free, 7.0 GiB less than/    |
      | lastError.fix     | any                          |
    And the pool "big" has told since it was made:
      | replica_preload | /^preload refused/ |
    And GET "/pools/big/status" comes to hold:
      | live         | false            |
      | ready        | false            |
      | slots_free   | 0                |
      | last_error   | /7.0 GiB less than/ |

  @OC-POOL-3003 @ORCH-3040
  Scenario: A start that failed keeps its cause and is tried again after a delay
    Then the pool "full" shows:
      | ready          | false            |
      | lastError.code | /^VRAM_/         |
    And the pool "full" has told since it was made:
      | replica_preload | /^preload failed/        |
      | replica_restart | /^restart 1 in \d+ ms: / |

  @OC-POOL-3003 @ORCH-3040
  Scenario: Each failed start in a row is followed by a longer delay
    Then the pool "other" has told since it was made:
      | replica_preload | /^preload failed/                                |
      | replica_restart | /^restart 1 in (12[5-9]\|1[3-9]\d\|2[0-4]\d\|250) ms/ |
      | replica_preload | /^preload failed/                                |
      | replica_restart | /^restart 2 in (2[5-9]\d\|[34]\d\d\|500) ms/      |
      | replica_preload | /^preload failed/                                |
      | replica_restart | /^restart 3 in ([5-9]\d\d\|1000) ms/              |
    And the replica "other-0" shows:
      | restartCount | > 2 |
    And the pool "other" shows:
      | ready          | false       |
      | lastError.code | WRONG_MODEL |
