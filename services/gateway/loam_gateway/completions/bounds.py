"""How many input tokens things are at most.

A token is at least one byte of UTF-8, so the bytes of the body that goes to the provider bound its input tokens; what
is not text has a bound of its own. The bound is generous on purpose: what is not used is given back at the settlement.
"""

# A model's own words around tools (Anthropic's are 530 tokens at most) and around a conversation.
FRAME_TOKENS = 64
TOOLS_TOKENS = 1_024
# The most that the largest image becomes, after the provider has scaled it down.
IMAGE_TOKENS = 5_000
# A PDF has at most 100 pages, each seen as text and as an image.
_PAGED_DOCUMENT_TOKENS = 600_000


def document_tokens(base64_length: int, *, plain: bool) -> int:
    """The most tokens of a document whose data is as long as that in base64; `plain` ones are nothing but text."""
    decoded_bytes = base64_length * 3 // 4
    return decoded_bytes if plain else max(decoded_bytes, _PAGED_DOCUMENT_TOKENS)
