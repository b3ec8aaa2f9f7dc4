Feature: Catalog of models
  What may be served, from where, and whether it is what it was promised to be.

  @ORCH-3037 @ORCH-3060 @ORCH-3061 @ORCH-3062 @ORCH-3063 @ORCH-3064 @ORCH-3065
  Scenario: A model is registered with all that is known of it, read back, and taken out
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |
    When I register the model "writer" with:
      | digest       | sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd |
      | source_url   | hf:someone/writer/q4.gguf                                               |
      | tags         | ["chat", "small"]                                                       |
      | manifests    | [{ "digest": "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", "size_bytes": 42 }] |
      | signatures   | [{ "signer": "someone", "algo": "ecdsa", "verified": true }]            |
      | sbom         | { "uri": "https://example.org/sbom" }                                   |
      | trust_policy | { "mode": "permissive", "require_sbom": true, "allowed_registries": ["huggingface.co"] } |
    Then the answer is 201
    When I look up the model "writer"
    Then the answer is 200
    And the answer holds:
      | id                              | writer                    |
      | digest                          | sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd |
      | source_url                      | hf:someone/writer/q4.gguf |
      | tags                            | chat, small               |
      | manifests[0].digest             | sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee |
      | manifests[0].size_bytes         | 42                        |
      | signatures[0].signer            | someone                   |
      | signatures[0].algo              | ecdsa                     |
      | signatures[0].verified          | false                     |
      | sbom.uri                        | https://example.org/sbom  |
      | trust_policy.mode               | permissive                |
      | trust_policy.require_sbom       | true                      |
      | trust_policy.allowed_registries | huggingface.co            |
    When I take the model "writer" out of the catalog
    Then the answer is 204
    When I look up the model "writer"
    Then the answer is 404

  @ORCH-3060
  Scenario: An id stands for one model: the same entry again changes nothing, another one is a conflict
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |
    When I register the model "twice"
    And I register the model "twice"
    Then the answer is 201
    When I register the model "twice" with:
      | digest | sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd |
    Then the answer is 409
    When I register the model "bare" with:
      | digest | md5:1 |
    Then the answer is 400
    And the answer holds:
      | field | digest |

  @ORCH-3069 @ORCH-3070 @ORCH-3071
  Scenario: A model is verified by its file: warned of for want of signatures, failed for another digest
    Given a model file "m.gguf"
    And the section "catalog":
      """
      model_roots: ["{folder of m.gguf}"]
      """
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I register the model "signed" with:
      | digest     | {digest of m.gguf}         |
      | source_url | file:{path of m.gguf}      |
      | signatures | [{ "signer": "someone" }]  |
    And I verify the model "signed"
    Then the answer is 202
    And the answer holds:
      | status           | warned               |
      | digest           | {digest of m.gguf}   |
      | warnings[0].code | SIGNATURE_UNVERIFIED |
    When I register the model "unsigned" with:
      | digest     | {digest of m.gguf}    |
      | source_url | file:{path of m.gguf} |
    And I verify the model "unsigned"
    Then the answer is 202
    And the answer holds:
      | status           | warned   |
      | warnings[0].code | UNSIGNED |
    When I register the model "wrong" with:
      | digest     | sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd |
      | source_url | file:{path of m.gguf} |
    And I verify the model "wrong"
    Then the answer is 400
    And the answer holds:
      | code | UNTRUSTED_ARTIFACT |
    And the metrics have grown by:
      | catalog_verifications_total | result=FAILED, reason=DIGEST_MISMATCH | 1 |
      | catalog_verifications_total | result=WARNED, reason=UNSIGNED        | 1 |

  @ORCH-3073 @ORCH-3074
  Scenario: A retired model takes no new task, and takes them again when it is active
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |
    When I register the model "chat-7b"
    And I retire the model "chat-7b"
    Then the answer is 202
    And the answer holds:
      | state | Retired |
    When I try to submit "a" to "chat"
    Then the answer is 410
    And the answer holds:
      | code      | MODEL_DEPRECATED |
      | field     | model_ref        |
      | retriable | false            |
    And there is no task "a"
    And the metrics come to hold:
      | model_state | model_id=chat-7b, state=Retired | 1 |
    When I reactivate the model "chat-7b"
    Then the answer is 202
    When I submit "b" to "chat"
    Then "b" ends

  @ORCH-3072 @long
  Scenario: A strict policy refuses models that the catalog does not have, or has unsigned
    Given a model file "m.gguf"
    And the section "catalog":
      """
      trust_policy: { mode: strict }
      model_roots: ["{folder of m.gguf}"]
      """
    And a control plane with the pools:
      | pool   | slots |
      | chat   | 2     |
      | signed | 2     |
    When I try to submit "a" to "chat"
    Then the answer is 400
    And the answer holds:
      | code  | UNTRUSTED_ARTIFACT |
      | field | model_ref          |
    When I register the model "chat-7b" with:
      | digest     | {digest of m.gguf}    |
      | source_url | file:{path of m.gguf} |
    And I try to submit "b" to "chat"
    Then the answer is 400
    And the answer holds:
      | code    | UNTRUSTED_ARTIFACT |
      | field   | model_ref          |
      | message | /no signature/     |
    When I verify the model "chat-7b"
    Then the answer is 400
    And the answer holds:
      | code    | UNTRUSTED_ARTIFACT |
      | message | /no signature/     |
    When I register the model "signed-7b" with:
      | signatures | [{ "signer": "someone" }] |
    And I submit "c" to "signed"
    Then "c" ends

  @ORCH-3066 @own @long
  Scenario: The catalog outlives the control plane
    Given a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I register the model "kept" with:
      | tags | ["old"] |
    And I register the model "over"
    And I retire the model "over"
    Then the answer is 202
    When the control plane is stopped, and one is started over its database with the pools:
      | pool | slots |
      | chat | 2     |
    And I look up the model "kept"
    Then the answer is 200
    And the answer holds:
      | tags | old |
    And the metrics come to hold:
      | model_state | model_id=kept, state=Active  | 1 |
      | model_state | model_id=over, state=Retired | 1 |
