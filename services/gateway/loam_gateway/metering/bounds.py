"""How much output a call may have at most, and what its input is for rate limits. Pure."""

CUT_ALLOWANCE_TOKENS = 256
"""Output that may have been generated, and billed, between the last piece seen and the end of a call that was cut."""

DEFAULT_OUTPUT_TOKENS = 4_096
USEFUL_OUTPUT_TOKENS = 64
"""A budget that covers fewer than these (or than what was asked for) is refused rather than clamped to them."""


def output_tokens(asked: int | None, ceiling: int | None) -> int:
    """The most output tokens of a call: what was asked for, within what the model can."""
    limits = [limit for limit in (asked, ceiling) if limit is not None]
    return min(limits, default=DEFAULT_OUTPUT_TOKENS)


def estimate_tokens(input_bound: int) -> int:
    """About how many tokens an input will be, for rate limits: English has four bytes a token."""
    return -(-input_bound // 4)
