"""InvokeModel for the models that have no Converse: embeddings of Titan and Cohere, and Cohere's reranker."""

from typing import Any

import numpy as np

from loam_bedrock_local import tokens
from loam_bedrock_local.embedder import Embedder, Vectors, normalize, widen
from loam_bedrock_local.errors import ValidationError
from loam_bedrock_local.models import Model
from loam_bedrock_local.prompt import Json

_TITAN_DIMENSIONS = (256, 512, 1024)
_COHERE_DIMENSIONS = (256, 512, 1024, 1536)
_TITAN_CHARACTERS, _TITAN_TOKENS = 50_000, 8192
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
        text, dimensions = body.get("inputText"), body.get("dimensions", 1024)
        if not isinstance(text, str):
            raise ValidationError(_MALFORMED.format("#: required key [inputText] not found"))
        if not 1 <= len(text) <= _TITAN_CHARACTERS:
            expected = "expected minLength: 1" if not text else f"expected maxLength: {_TITAN_CHARACTERS}"
            raise ValidationError(_MALFORMED.format(f"{expected}, actual: {len(text)}"))
        if dimensions not in _TITAN_DIMENSIONS:
            raise ValidationError(_MALFORMED.format(f"#/dimensions: {dimensions} is not a valid enum value"))
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
        texts = body.get("texts")
        if not isinstance(texts, list) or not 1 <= len(texts) <= 96 or not all(isinstance(t, str) for t in texts):
            raise ValidationError(_MALFORMED.format("#/texts: expected 1 to 96 strings"))
        if "input_type" not in body:
            raise ValidationError(_MALFORMED.format("#: required key [input_type] not found"))
        dimensions = body.get("output_dimension", 1536 if model.name == "cohere.embed-v4:0" else 1024)
        if dimensions not in _COHERE_DIMENSIONS:
            raise ValidationError(_MALFORMED.format(f"#/output_dimension: {dimensions} is not a valid enum value"))
        vectors: Any = self._vectors(texts, dimensions, unit=True)
        answer: Json = {"id": "", "response_type": "embeddings_floats", "embeddings": vectors, "texts": texts}
        if body.get("embedding_types"):
            answer |= {"response_type": "embeddings_by_type", "embeddings": {"float": vectors}}
        return answer, sum(map(tokens.count, texts))

    def _cohere_rerank(self, body: Json) -> tuple[Json, int]:
        query, documents = body.get("query"), body.get("documents")
        if not isinstance(query, str) or not isinstance(documents, list) or not documents:
            raise ValidationError(_MALFORMED.format("#: query and documents are required"))
        vectors = normalize(self._embedder.embed([query, *map(str, documents)]))
        scores = (vectors[1:] @ vectors[0]).clip(0, 1)
        order = np.argsort(-scores, kind="stable")[: body.get("top_n", len(documents))]
        results = [{"index": int(index), "relevance_score": float(scores[index])} for index in order]
        return {"results": results}, sum(map(tokens.count, [query, *map(str, documents)]))

    def _vectors(self, texts: list[str], dimensions: int, *, unit: bool) -> Vectors:
        vectors = self._embedder.embed(texts)
        return widen(normalize(vectors) if unit else vectors, dimensions)
