"""Searches for a question, made of its own words: there is no model here that knows other ones."""

import re

from loam_bedrock_local.words import keywords

_MOST = 3
_PARTS = re.compile(r"\s*(?:[,;?]|\b(?:and|or|but|than|versus|vs)\b)\s*", re.IGNORECASE)
_TURN = re.compile(r"^User: (.*)$", re.MULTILINE)


def searches(question: str, earlier: str) -> list[str]:
    """Up to three searches: the words that carry meaning, after those of the turn before; then the question's parts.

    `earlier` is a transcript with lines such as ``User: …``.
    """
    own = " ".join(keywords(question))
    before = [" ".join(keywords(turn)) for turn in _TURN.findall(earlier)[-1:]]
    parts = [" ".join(keywords(part)) for part in _PARTS.split(question)]
    wanted = [" ".join([*before, own]), *([own] if before else []), *(part for part in parts if " " in part)]
    found = [search for search in dict.fromkeys(map(str.strip, wanted)) if search]
    return found[:_MOST] or [question.strip()]
