"""What Bedrock would have billed, for reconciling a ledger with."""

from collections import defaultdict
from dataclasses import asdict, dataclass

from pydantic.alias_generators import to_camel

from loam_bedrock_local.converse import Usage


@dataclass(slots=True)
class Account:
    """Sums of one model."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Meter:
    """Counts every answered call once, when its answer is computed: that is when a provider's meter runs.

    A stream bills its input when it starts and its output as it is produced, so one that is cut bills a part.
    """

    def __init__(self) -> None:
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    def bill(self, model_id: str, usage: Usage, *, calls: int = 1) -> None:
        """Add to the account of `model_id`."""
        account = self._accounts[model_id]
        account.calls += calls
        account.input_tokens += usage.input
        account.output_tokens += usage.output
        account.cache_read_tokens += usage.cache_read or 0
        account.cache_write_tokens += usage.cache_write or 0

    def bill_output(self, model_id: str, output_tokens: int) -> None:
        """Add output of a call that is billed already."""
        self._accounts[model_id].output_tokens += output_tokens

    def report(self) -> dict[str, dict[str, int]]:
        """Model id to sums, as JSON has them."""
        return {
            model_id: {to_camel(name): value for name, value in asdict(account).items()}
            for model_id, account in self._accounts.items()
        }

    def reset(self) -> None:
        """Start from nothing."""
        self._accounts.clear()
