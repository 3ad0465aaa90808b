"""InvokeModel for the models that have no Converse: embeddings of Titan and Cohere, and Cohere's reranker."""

import numpy as np

from loam_bedrock_local import tokens
from loam_bedrock_local.embedder import Embedder, Vectors, normalize, widen
from loam_bedrock_local.errors import ValidationError
from loam_bedrock_local.models import Model
from loam_bedrock_local.prompt import Json
from loam_bedrock_local.ranking import rerank
from loam_bedrock_local.validation import conform

_TITAN: Json = {
    "inputText!": str,
    "dimensions": (256, 512, 1024),
    "normalize": (True, False),
    "embeddingTypes": [("float", "binary")],
}
_TITAN_CHARACTERS, _TITAN_TOKENS = 50_000, 8192
_COHERE_EMBED: Json = {
    "texts!": [str],
    "input_type!": ("search_document", "search_query", "classification", "clustering"),
    "output_dimension": (256, 512, 1024, 1536),
    "embedding_types": [("float",)],
}
_COHERE_TEXTS = 96
_COHERE_RERANK: Json = {"query!": str, "documents!": [str], "top_n": int, "api_version": int}
_MALFORMED = "Malformed input request: {}, please reformat your input and try again."


class Invoker:
    """Answers InvokeModel requests with a body and the tokens that it bills."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def invoke(self, model: Model, body: Json) -> tuple[Json, int]:
        """The answer to `body`, and its input tokens.

        Raises:
            ValidationError: the model has no such API, or the body breaks its schema.
        """
        match model.kind:
            case "TitanEmbed":
                return self._titan(body)
            case "CohereEmbed":
                return self._cohere_embed(model, body)
            case "CohereRerank":
                return self._cohere_rerank(body)
            case "Chat":
                raise ValidationError("This stand-in serves chat models over Converse and ConverseStream only.")

    def _titan(self, body: Json) -> tuple[Json, int]:
        conform(body, _TITAN)
        text, dimensions = body["inputText"], body.get("dimensions", 1024)
        if not 1 <= len(text) <= _TITAN_CHARACTERS:
            expected = "expected minLength: 1" if not text else f"expected maxLength: {_TITAN_CHARACTERS}"
            raise ValidationError(_MALFORMED.format(f"{expected}, actual: {len(text)}"))
        counted = tokens.count(text)
        if counted > _TITAN_TOKENS:
            raise ValidationError(
                f"400 Bad Request: Too many input tokens. Max input tokens: {_TITAN_TOKENS}, "
                f"request input token count: {counted}"
            )
        vector = self._vectors([text], dimensions, unit=body.get("normalize", True))[0]
        kinds = body.get("embeddingTypes") or ["float"]
        by_type = {kind: vector if kind == "float" else (vector > 0).astype(np.int8) for kind in kinds}
        main = {"embedding": vector} if "float" in kinds else {}
        return main | {"embeddingsByType": by_type, "inputTextTokenCount": counted}, counted

    def _cohere_embed(self, model: Model, body: Json) -> tuple[Json, int]:
        conform(body, _COHERE_EMBED)
        texts = body["texts"]
        if not 1 <= len(texts) <= _COHERE_TEXTS:
            raise ValidationError(_MALFORMED.format(f"#/texts: expected 1 to {_COHERE_TEXTS}, actual: {len(texts)}"))
        dimensions = body.get("output_dimension", 1536 if model.name == "cohere.embed-v4:0" else 1024)
        vectors = self._vectors(texts, dimensions, unit=True)
        answer: Json = {"id": "", "response_type": "embeddings_floats", "embeddings": vectors, "texts": texts}
        if body.get("embedding_types"):
            answer |= {"response_type": "embeddings_by_type", "embeddings": {"float": vectors}}
        return answer, sum(map(tokens.count, texts))

    def _cohere_rerank(self, body: Json) -> tuple[Json, int]:
        conform(body, _COHERE_RERANK)
        query, documents = body["query"], body["documents"]
        scores = rerank(self._embedder, query, documents) if documents else []
        order = sorted(range(len(documents)), key=lambda index: -scores[index])[: body.get("top_n")]
        results = [{"index": index, "relevance_score": scores[index]} for index in order]
        return {"results": results}, sum(map(tokens.count, [query, *documents]))

    def _vectors(self, texts: list[str], dimensions: int, *, unit: bool) -> Vectors:
        vectors = self._embedder.embed(texts)
        return widen(normalize(vectors) if unit else vectors, dimensions)
