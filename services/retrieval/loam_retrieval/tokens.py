"""How many tokens a text may be at most, without the tokenizer of a model that is somebody else's."""

import re

_PIECE = re.compile(r"[A-Za-z]{1,4}|[^\sA-Za-z]|\n")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f\s]")


def at_most(text: str) -> int:
    """A bound that today's tokenizers keep to.

    Four ASCII letters count as a token, any other ASCII sign as one, a sign beyond ASCII as its UTF-8 bytes less one.
    English prose comes to about 1.4 times what models count, Chinese to about twice; a text of nothing but rare signs
    could still be more.
    """
    beyond = len(text.encode(errors="replace")) - len(text) - len(_BEYOND_ASCII.findall(text))
    return len(_PIECE.findall(text)) + max(0, beyond)
