Feature: Provisioning
  What would be done to have an engine here is told before it is done, and nothing is reached that policy does not name.

  @ORCH-3201 @ORCH-3207 @OC-CONFIG-6021
  Scenario: The plan of a source build names each command
    When I run "plan" with the configuration:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      network: { allow_hosts: [github.com] }
      pools:
        - id: built
          engine: llamacpp
          model: m.gguf
          devices: [0]
          provisioning:
            mode: source
            source: { repo: "https://github.com/ggml-org/llama.cpp", ref: b4321, build: { cmake_flags: [-DGGML_CUDA=ON] } }
      """
    Then it says "git"
    And it says "b4321"
    And it says "-DGGML_CUDA=ON"

  @ORCH-3080 @ORCH-3206 @ORCH-3204
  Scenario: A download that no policy allows is an obstacle with a fix
    When I run "plan" with the configuration:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      pools:
        - id: fetched
          engine: llamacpp
          model: m.gguf
          devices: [0]
          provisioning:
            mode: binary
            binary: { url: "https://example.org/llama-server", checksum: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
      """
    Then it exits with 1
    And it says "allow_binary_downloads"

  @OC-CONFIG-6020 @OC-CONFIG-6024
  Scenario: A binary from the network needs its checksum
    When I run "plan" with the configuration:
      """
      pools:
        - id: fetched
          engine: llamacpp
          model: m.gguf
          provisioning: { mode: binary, binary: { url: "https://example.org/llama-server" } }
      """
    Then it exits with 1
    And it says "checksum"

  @OC-CONFIG-6027
  Scenario: A key that nobody knows is refused with its path
    When I run "plan" with the configuration:
      """
      pools:
        - id: chat
          engine: llamacpp
          model: m
          modle: typo
          provisioning: { mode: simulated }
      """
    Then it exits with 1
    And it says "modle"

  @ORCH-3204 @ORCH-3091
  Scenario: A pool whose model is not there says what to do
    Given a control plane configured as:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      pools:
        - id: missing
          engine: llamacpp
          model: /nowhere/model.gguf
          devices: [0]
          provisioning: { mode: binary, binary: { url: "file:///bin/sleep" } }
      """
    Then the pool "missing" shows:
      | ready                       | false  |
      | lastError.code              | MODEL_MISSING |
      | lastError.fix               | any    |
    When I try to submit "a" to "missing" with:
      | model_ref | /nowhere/model.gguf |
    Then the answer is 503
    And the answer holds:
      | code      | POOL_UNREADY                   |
      | message   | /does not exist.*Put the model there/ |
      | retriable | true                           |
