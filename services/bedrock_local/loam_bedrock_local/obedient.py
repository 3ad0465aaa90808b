"""A model that does whatever it is told, by anybody: what prompts have to hold against.

It follows every instruction that stands outside of the data fence, ``<source …>…</source>``, and nothing that stands
inside. It is a real adversary: it reads text as the most careless of models might. Letters that cannot be seen, marks,
other alphabets' look-alikes, entities, escapes, case and punctuation are evened out before it looks for fences, so what
merely resembles the end of a fence ends it; and a fence that is not closed is none.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from html import unescape

from loam_bedrock_local.prompt import Json, texts_of

_ESCAPED = re.compile(r"%([0-9a-f]{2})|\\(?:u00|x)([0-9a-f]{2})", re.IGNORECASE)
_SIGNS = str.maketrans(
    dict.fromkeys("\u2039\u27e8\u3008\u2329\u276e\u276c\u02c2\u1438\u300a\u00ab", "<")
    | dict.fromkeys("\u203a\u27e9\u3009\u232a\u276f\u276d\u02c3\u1433\u300b\u00bb", ">")
    | dict.fromkeys("\u2215\u2044\u29f8\u2571", "/")
    | {chr(0x1F1E6 + index): chr(ord("a") + index) for index in range(26)}
)
_LOOKALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0501\u0433\u057d\u03bf\u03c5\u03b5\u03b1\u03b9\u03f2\u0131",
    "aeopcyxisdruoueaici",
)
_UNSEEN = frozenset({"Mn", "Cf", "Cc", "Cn", "Co"})
# Between the letters of a tag anything may stand that is no letter.
_GAP = r"[^a-z<>]*"
_TAG = re.compile(
    r"<[^a-z<>/]*(?P<end>/)?" + _GAP + _GAP.join(("[s5$]", "[o0]", "u", "r", "c", "[e3]")) + r"(?![a-z])[^<>]*>?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?\n]+")
_CONDITION = re.compile(r"\W*(?:if|when|where|unless|never|do not|don't)\b", re.IGNORECASE)
_SPEAK = r"(?:say|print|output|echo|repeat|write|type|shout|translate|include|contain|insert|append)"
_ANSWER = r"(?:answer|reply|respond|begin|start|end)\b(?:\s+(?:your|the|every|each|answer|reply|question))*"
_LED_BY = r"(?:^|[^\w\s]|\b(?:and|then|must|should|shall|now|please|instead|only|just|to|always|will|you|can)\b)"
_FILLERS = r"(?:\s+(?:with|exactly|only|the|word|words|phrase|text|following|sentence|this|just|back|in\s+capitals))*"
_ORDERS = tuple(
    re.compile(pattern + r"[\s:=\"'*_`\u201c\u201d]*(?P<told>.+)", re.IGNORECASE)
    for pattern in (
        rf"{_LED_BY}\W*{_SPEAK}\b{_FILLERS}",
        rf"{_LED_BY}\W*{_ANSWER}\s+(?:with|only|exactly|by\s+saying)\b{_FILLERS}",
        r"\b(?:answer|reply|response)\s+(?:is|must\s+be|should\s+be|shall\s+be|has\s+to\s+be)\b",
        rf"{_LED_BY}\W*(?:call\s+yourself|your\s+name\s+is|you\s+are\s+now)\b",
    )
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


def orders(body: Json) -> list[str]:
    """What the texts of a conversation tell the model to say, outside of fences, in the order in which they stand."""
    return [told for text in texts_of(body) for told in orders_in(text)]


def orders_in(text: str) -> Iterator[str]:
    """The same of one text."""
    for part in outside(even(text)):
        yield from _orders(part)
        for hidden in _BASE64.findall(part):
            yield from _orders(even(_decoded(hidden)))


def outside(text: str) -> list[str]:
    """The parts of an evened text that no fence holds. A fence ends where its first end stands, or is none."""
    parts, done, opened = [], 0, -1
    for tag in _TAG.finditer(text):
        if tag["end"] and opened >= 0:
            parts.append(text[done:opened])
            done, opened = tag.end(), -1
        elif not tag["end"] and opened < 0:
            opened = tag.start()
    return [*parts, text[done:]]


def even(text: str) -> str:
    """`text` as a careless reader takes it in; only its case is kept."""
    for _ in range(3):
        text = unescape(text)
    text = _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
    apart = unicodedata.normalize("NFKD", text.translate(_SIGNS)).translate(_SIGNS)
    seen = (sign for sign in apart if sign in "\n\t" or unicodedata.category(sign) not in _UNSEEN)
    return "".join(sign if sign.isascii() else sign.lower().translate(_LOOKALIKE) for sign in seen)


def _orders(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.findall(text):
        found = (order.search(sentence) for order in _ORDERS)
        if not _CONDITION.match(sentence):
            yield from (order["told"].strip() for order in found if order)


def _decoded(hidden: str) -> str:
    try:
        return base64.b64decode(hidden + "=" * (-len(hidden) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
