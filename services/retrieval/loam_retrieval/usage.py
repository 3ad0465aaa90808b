"""What calls have cost, added up."""

from loam_shared import money
from loam_shared.contracts.retrieval import Usage


def add(left: Usage, right: Usage) -> Usage:
    """Both together."""
    return Usage(
        input_tokens=left.input_tokens + right.input_tokens,
        output_tokens=left.output_tokens + right.output_tokens,
        cost_usd=money.format_usd(money.parse_usd(left.cost_usd) + money.parse_usd(right.cost_usd)),
    )
