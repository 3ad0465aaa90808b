"""Words and sentences of English text, as far as ranking needs them."""

import re
from dataclasses import dataclass

_EDGE = re.compile(
    r"(?<=[.!?])(?<!\b[A-Za-z]\.)(?<!\b(?:Mr|Ms|Dr|St|No|vs)\.)(?<!\b(?:Mrs|etc)\.)[\"')\]]*\s+|\s*\n+\s*|(?<=[.!?])[\"')\]]+\s+"
)
# A long line that ends in the middle of a sentence was wrapped by an editor.
_WRAP = re.compile(r"(?<=[^\n]{60})(?<![.!?:;|])\n(?![\n#|>*\u2022+-]|\d+[.)])")
_BULLET = re.compile(r"^(?:[-*•+>]|\d{1,2}[.)])\s+")
_TITLE = re.compile(r"#{1,6}\s+(.*?)\s*#*|(.*\?)|\*\*([^*]+)\*\*:?")
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_POSSESSIVE = re.compile(r"['\u2019]s$")
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "ed", "es", "ly", "s", "e", "y")
# Words that carry no meaning of their own in a question.
_STOP = frozenset(
    """
    a about all also am an and any are as at be been but by can could did do does for from get give had has have how i
    if in into is it its just let may me might more most my no not of on or our please shall she he should so some such
    tell than that the their them then there these they this those to us was we were what when where which who whom
    whose why will with would you your
    """.split()  # noqa: SIM905 - a list of eighty quoted words reads worse
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A unit of text that can be quoted word for word, with the heading or question that it stands under."""

    text: str
    heading: str


def sentences(text: str) -> list[Sentence]:
    """`text` cut into sentences, list items and lines. Headings and questions go with what stands under them."""
    found, heading = [], ""
    for part in _EDGE.split(_WRAP.sub(" ", text)):
        line = _BULLET.sub("", part.strip().strip("|").strip())
        if titled := _TITLE.fullmatch(line):
            heading = next(title for title in titled.groups() if title is not None)
        elif _WORD.search(line):
            found.append(Sentence(line, heading))
    return found


def stem(word: str) -> str:
    """A word without its commonest English endings, so that `days` meets `day` and `booked` meets `booking`."""
    word = _POSSESSIVE.sub("", word.lower())
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def terms(text: str) -> list[str]:
    """The stems of the words of `text` that carry meaning."""
    return [stem(word) for word in keywords(text)]


def keywords(text: str) -> list[str]:
    """The words of `text` that carry meaning, as they are written."""
    return [word for word in _WORD.findall(text) if word.lower() not in _STOP]
