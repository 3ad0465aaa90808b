"""Data inside of prompts: `source` elements that nothing in them can end, imitate or hide.

Models read more than parsers do: a bracket of another alphabet, a tag with letters that cannot be seen, one that is
written with Cyrillic look-alikes or in entities. So what reaches a prompt as data is cleaned of everything invisible,
and every bracket whose next letters are those of "source", however they are written and whatever stands between, is
replaced. The replacement is no entity: a model that reads ``&lt;`` as ``<`` would read the imitation again.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from html import unescape

_TAG = "source"
_BRACKETS = (
    "<\uff1c\ufe64\u226e\u2039\u27e8\u3008\u2329\u276e\u276c\u02c2\u1438\u300a\u00ab\u227a\u22d6\ufe3d\ufe3f\U0001d236"
)
_OPENING = re.compile(f"[{_BRACKETS}]")
_ESCAPED = re.compile(r"(?:%|\\x|\\u00)([0-9a-f]{2})", re.IGNORECASE)
# Templates of chat models, such as <|im_start|>, are written with this.
_CHAT_TOKEN = re.compile(r"[<\uff1c]\s*(?=[|\uff5c])")
_INSTEAD = "("
# Letters and signs that look like those of "source"; what NFKD takes apart need not stand here.
_LOOKALIKE = str.maketrans(
    {
        **dict.fromkeys("\u0455\u10fd\ua731\u01bd\ua644\u0282\u054f\u13da\u00df", "s"),
        **dict.fromkeys("\u043e\u03bf\u0585\u0ae6\u0966\u06f5\u00f8\u0275\u2c9f\u1d0f\u101d\u0e50\u0ed0\u0647", "o"),
        **dict.fromkeys("\u057d\u03c5\u1d1c\u028b\ua79f\U000118d8\u144c\u222av\u0475", "u"),
        **dict.fromkeys("\u0433\u1d26\uab47\uab48\u0280\u1d72\u027e\u2c85\u13a1", "r"),
        **dict.fromkeys("\u0441\u03f2\u1d04\u2ca5\uabaf\u0188\u03c2", "c"),
        **dict.fromkeys("\u0435\u04bd\u212e\u1d07\u03b5\u0437\u0454\u0247\u01dd\u2c89", "e"),
    }
)
# Signs that a reader may take for letters, or pass over.
_LEET = {"5": "s", "$": "s", "0": "o", "3": "e"}
_PLACES = {letter: 1 << place for place, letter in enumerate(_TAG)}
_COMPLETE = 1 << len(_TAG)
# Squared, circled and flag letters, each alphabet from A to Z.
_LETTERED = (0x1F150, 0x1F170, 0x1F1E6)
_KEPT_CONTROLS = frozenset("\n\t")
_JOINERS = frozenset("\u200c\u200d")
_HIDDEN = frozenset({"Cf", "Cc", "Cs", "Co", "Cn"})
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f")
_LONGEST_NAME = 200


def fenced(text: str, **attributes: object) -> str:
    """`text` as data: an element of which nothing inside can get out."""
    named = "".join(f' {name}="{_attribute(str(value))}"' for name, value in attributes.items())
    return f"<{_TAG}{named}>\n{harmless(text)}\n</{_TAG}>"


def harmless(text: str) -> str:
    """Text that neither ends the fence it stands in nor opens another one, with nothing in it that cannot be seen."""
    seen = visible(text)
    decoded = _decoded(seen)
    if decoded != seen and any(_imitations(decoded)):
        seen = decoded
    pieces, done = [], 0
    for bracket in _imitations(seen):
        pieces += [seen[done : bracket.start()], _INSTEAD]
        done = bracket.end()
    return _CHAT_TOKEN.sub(_INSTEAD, "".join([*pieces, seen[done:]]))


def visible(text: str) -> str:
    """`text` without controls, marks of direction, tags, variation selectors and letters of no width.

    Joiners stay between letters beyond Latin: Persian and the Indic scripts are written with them, and emoji.
    """
    if text.isprintable() and text.isascii():
        return text
    kept = (
        sign for at, sign in enumerate(text) if not _is_hidden(sign) or (sign in _JOINERS and _is_joining(text, at))
    )
    return "".join(kept)


@lru_cache(maxsize=4096)
def _is_hidden(sign: str) -> bool:
    point = ord(sign)
    is_selector = 0xFE00 <= point <= 0xFE0F or 0xE0100 <= point <= 0xE01EF
    is_hidden = is_selector or sign in _FILLERS or unicodedata.category(sign) in _HIDDEN
    return is_hidden and sign not in _KEPT_CONTROLS


def _is_joining(text: str, at: int) -> bool:
    around = text[max(0, at - 1) : at] + text[at + 1 : at + 2]
    return len(around) == 2 and all(ord(sign) > 0x2FF and not _is_hidden(sign) for sign in around)


def _decoded(text: str) -> str:
    """`text` with its entities and escapes resolved, also those of entities."""
    for _ in range(4):
        resolved = visible(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), unescape(text)))
        if resolved == text:
            break
        text = resolved
    return text


def _imitations(text: str) -> Iterator[re.Match[str]]:
    """The brackets that a careless reader would take for the beginning of a fence's tag."""
    brackets = list(_OPENING.finditer(text))
    letters = [(letter, at) for at, sign in enumerate(text) for letter in _looks(sign)] if brackets else []
    places = [at for _, at in letters]
    names = _names_the_tag([letter for letter, _ in letters])
    yield from (bracket for bracket in brackets if names[bisect_left(places, bracket.end())])


def _names_the_tag(letters: Sequence[str]) -> list[bool]:
    """Whether the letters from each place on, and from behind the last, begin with those of the tag.

    Bit k of `rest` says that what follows completes the tag after its first k letters. Every letter is looked at once.
    """
    rest = _COMPLETE
    found = [False]
    for letter in reversed(letters):
        if letter in _LEET:
            rest |= (rest >> 1) & _PLACES[_LEET[letter]]
        else:
            rest = ((rest >> 1) & _PLACES.get(letter, 0)) | _COMPLETE
        found.append(bool(rest & 1))
    return found[::-1]


@lru_cache(maxsize=4096)
def _looks(sign: str) -> str:
    """The lower-case letters that a sign looks like, or itself where it may stand for one; nothing for any other."""
    if sign.isascii():
        return sign.lower() if sign.isalpha() or sign in _LEET else ""
    if sign in _BRACKETS:
        return ""
    for first in _LETTERED:
        if first <= ord(sign) < first + 26:
            return chr(ord("a") + ord(sign) - first)
    apart = unicodedata.normalize("NFKD", sign.casefold().translate(_LOOKALIKE)).casefold().translate(_LOOKALIKE)
    return "".join(letter for letter in apart if letter in _LEET or unicodedata.category(letter).startswith("L"))


def _attribute(value: str) -> str:
    """A value that cannot leave its quotes; it only names what stands in the element."""
    plain = " ".join(harmless(_decoded(value)).split())
    return re.sub(rf"[\"'&>`=\uff02\uff1e\u201c\u201d{_BRACKETS}]", "_", plain)[:_LONGEST_NAME]
