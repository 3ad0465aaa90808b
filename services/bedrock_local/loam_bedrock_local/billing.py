"""What Bedrock would have billed, for reconciling a ledger with."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic.alias_generators import to_camel

from loam_bedrock_local.converse import Usage

# Calls that are remembered one by one; older ones live on in the sums of their model only.
_MOST_CALLS = 100_000


@dataclass(slots=True)
class Account:
    """Sums of one model, of one call, or of calls with the same metadata."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def add(self, other: "Account") -> None:
        """Count what the other one counted as well."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens

    def report(self) -> dict[str, int]:
        """As JSON has it."""
        return {to_camel(name): value for name, value in asdict(self).items()}


class Bill:
    """What one call is billed, from its beginning on."""

    def __init__(self, model: Account, call: Account) -> None:
        self._model = model
        self._call = call

    def output(self, tokens: int) -> None:
        """Add output that was produced."""
        self._model.output_tokens += tokens
        self._call.output_tokens += tokens


class Meter:
    """Counts every answered call once, when its answer is computed: that is when a provider's meter runs.

    A stream bills its input when it starts and its output as it is produced, so one that is cut bills a part.
    """

    def __init__(self) -> None:
        self._models: defaultdict[str, Account] = defaultdict(Account)
        self._calls: deque[tuple[Mapping[str, str], Account]] = deque(maxlen=_MOST_CALLS)

    def bill(self, model_id: str, usage: Usage, metadata: Mapping[str, str] | None = None) -> Bill:
        """Bill a call of `model_id`; `metadata` is what the caller gave it for the invocation log."""
        call = Account(1, usage.input, usage.output, usage.cache_read or 0, usage.cache_write or 0)
        self._models[model_id].add(call)
        self._calls.append((metadata or {}, call))
        return Bill(self._models[model_id], call)

    def report(self) -> dict[str, dict[str, int]]:
        """Model id to sums, as JSON has them."""
        return {model_id: account.report() for model_id, account in self._models.items()}

    def report_by(self, name: str) -> dict[str, dict[str, int]]:
        """Value to sums, over the calls whose metadata have `name`."""
        sums: defaultdict[str, Account] = defaultdict(Account)
        for metadata, call in self._calls:
            if name in metadata:
                sums[metadata[name]].add(call)
        return {value: account.report() for value, account in sums.items()}

    def reset(self) -> None:
        """Start from nothing."""
        self._models.clear()
        self._calls.clear()
