"""A stand-in for Amazon Bedrock that speaks its wire protocol, for laptops and tests.

Point any AWS SDK at it with ``AWS_ENDPOINT_URL_BEDROCK_RUNTIME``; a request needs a signature or a bearer token, which
is checked where LOAM_ACCEPT_KEYS names credentials. Served are ``converse``, ``converse-stream``, ``count-tokens``, and
``invoke`` for embeddings (Titan, Cohere) and reranking (Cohere).

Of its own it has:

| call | what |
|---|---|
| ``GET /healthz`` | 200 once it serves |
| ``GET /_local/billed``, ``DELETE …`` | calls and tokens by model id, as Bedrock would have billed them; start over |
| ``GET /_local/billed?metadata=NAME`` | that, and the sums by the value of NAME in the calls' ``requestMetadata`` |
| ``PUT /_local/scenario``, ``DELETE …`` | which calls suffer which faults from now on: `faults.Script` |
| header ``x-loam-local-fault`` | a fault for one request: ``throttle``, ``error=500,delay=200``, ``obedient`` |

It is no language model: answers are sentences of the prompt (see `answer`), tools are chosen and filled by their words
(see `tools`, `arguments`). Embeddings are real (see `embedder`). The same request always gets the same answer.
"""
