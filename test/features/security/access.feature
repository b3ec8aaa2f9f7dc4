Feature: Access

  @AUTH-1002
  Scenario: An address that others can reach needs a token, or nothing is started
    Given the environment:
      | ORCHD_ADDR   | 0.0.0.0:0                         |
      | DATABASE_URL | postgresql://nobody@127.0.0.1:1/x |
    When I run "serve" with the configuration:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      pools: [{ id: chat, engine: llamacpp, model: m, devices: [0], provisioning: { mode: simulated } }]
      """
    Then it exits with 1
    And it says "NON_LOOPBACK_WITHOUT_TOKEN"

  @AUTH-1001 @AUTH-1007 @AUTH-1008 @OC-CTRL-2041
  Scenario: Where a token is set, only those that send it come in, as a bearer or as an API key
    Given the environment:
      | AUTH_TOKEN | a-long-and-secret-token |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send GET "/v1/capabilities"
    Then the answer is 401
    And the answer holds:
      | error | MISSING_TOKEN |
      | code  | 40101         |
    When I send GET "/v1/capabilities" with the headers:
      | Authorization | Bearer wrong |
    Then the answer is 401
    And the answer holds:
      | error | BAD_TOKEN |
      | code  | 40102     |
    When I send GET "/v1/capabilities" with the headers:
      | Authorization | Bearer a-long-and-secret-token |
    Then the answer is 200
    When I send GET "/v1/capabilities" with the headers:
      | X-API-Key | a-long-and-secret-token |
    Then the answer is 200
    And nothing that was written holds "a-long-and-secret-token"

  @AUTH-1003
  Scenario: AUTH_OPTIONAL frees callers of this machine
    Given the environment:
      | AUTH_TOKEN    | a-long-and-secret-token |
      | AUTH_OPTIONAL | true                    |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send GET "/v1/capabilities"
    Then the answer is 200
    When I send GET "/v1/capabilities" with the headers:
      | Authorization | Bearer wrong |
    Then the answer is 401

  @OC-CTRL-2070
  Scenario: Pages of other origins are refused
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |
    When I send POST "/v1/pools/chat/drain" with the headers:
      | Origin       | http://evil.example |
      | Content-Type | application/json    |
    Then the answer is 403
    And the answer has the headers:
      | access-control-allow-origin | absent |

  @AUTH-1005
  Scenario: The log says who asked
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |
    When I submit "a" to "chat"
    Then "a" ends
    And a log line tells:
      | job_id   | {id of a} |
      | identity | localhost |

  @AUTH-1003 @AUTH-1006
  Scenario Outline: Whom a proxy forwards is let in only where the proxy is trusted: <setting>
    Given the environment:
      | AUTH_TOKEN | a-long-and-secret-token |
      | <setting>  | true                    |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send GET "/v1/capabilities" with the headers:
      | X-Forwarded-For | 203.0.113.9 |
    Then the answer is <forwarded>
    When I send GET "/v1/capabilities"
    Then the answer is <local>

    Examples:
      | setting          | forwarded | local |
      | TRUST_PROXY_AUTH | 200       | 401   |
      | AUTH_OPTIONAL    | 401       | 200   |
