"""Rankings: which documents answer a query best. Cohere's shape on both sides."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from loam_shared.errors import InvalidRequestError

# A query is billed anew for every so many pieces of documents, and a longer document is cut into pieces of so many
# tokens, those of the query among them.
_PIECES_PER_QUERY = 100
_PIECE_TOKENS = 512


class RerankRequest(BaseModel):
    """The body of a rerank call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=253)
    query: str = Field(min_length=1)
    documents: list[str] = Field(min_length=1, max_length=1000)
    top_n: int | None = Field(default=None, ge=1)


def rerank_body(request: RerankRequest, *, model_id: str) -> dict[str, Any]:
    """What Bedrock's rerankers take. Raises InvalidRequestError for any other model."""
    if "rerank" not in model_id:
        raise InvalidRequestError(f"model: {model_id} is not a reranker that Loam can call", param="model")
    body: dict[str, Any] = {"query": request.query, "documents": request.documents}
    if request.top_n is not None:
        body["top_n"] = min(request.top_n, len(request.documents))
    return body | ({"api_version": 2} if "cohere." in model_id else {})


def queries_of(request: RerankRequest) -> tuple[int, bool]:
    """How many queries the call is billed as at most, and whether it is exactly so many.

    A token is at least one byte, so documents that are short in bytes are one piece each; of longer ones the tokens
    are not known.
    """
    room = max(1, _PIECE_TOKENS - len(request.query.encode()))
    pieces = sum(max(1, -(-len(document.encode()) // room)) for document in request.documents)
    return -(-pieces // _PIECES_PER_QUERY), pieces == len(request.documents)


def billed_queries(reply: dict[str, Any]) -> int | None:
    """The queries that a reply speaks of, if it does."""
    units = ((reply.get("meta") or {}).get("billed_units") or {}).get("search_units")
    return None if units is None else int(units)


def ranking(reply: dict[str, Any], *, model: str, queries: int, cost_usd: str) -> dict[str, Any]:
    """The answer: indices of documents with their scores, the best first."""
    results = [{"index": found["index"], "relevance_score": found["relevance_score"]} for found in reply["results"]]
    return {"model": model, "results": results, "usage": {"queries": queries, "cost_usd": cost_usd}}
