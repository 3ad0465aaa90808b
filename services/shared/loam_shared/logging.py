"""Logs: one JSON object a line for machines, short coloured lines on a terminal; never a secret, never a prompt.

Nothing logs what callers write. Should a library's message carry some of it nevertheless, keys, tokens, addresses and
card numbers in it are masked on the way out, whatever field they came in.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

# What tells a secret by its looks: the part that stays is in the group. Loam's keys have 43 characters after the
# prefix, so names of modules and metrics, which begin alike, are left as they are.
_SECRETS = re.compile(
    r"\b(loam_[A-Za-z0-9]{4})[A-Za-z0-9]{16,}"
    r"|((?i:\b(?:Bearer|Basic)\s+))[A-Za-z0-9._~+/=-]+"
    r"|\b(sk-)[A-Za-z0-9_-]{16,}"  # OpenAI's and Anthropic's keys
    r"|\b(A[KS]IA)[A-Z0-9]{16}\b"  # AWS access keys
    r"|\b(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # JSON web tokens
    r"|(hooks\.slack\.com/services/)[A-Za-z0-9/_-]+"
    r"|(://[^\s:/@]*:)[^\s/@]+(?=@)"  # the password in an address of a server
)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@(?=[A-Za-z0-9-]+\.[A-Za-z])[A-Za-z0-9.-]+")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_MASK = "***"

# Libraries that tell at `info` what nobody asks for.
_CHATTY = ("aiobotocore", "alembic.runtime.plugins", "botocore", "httpx")


def configure(level: str = "info", *, service: str) -> None:
    """Set up logging for a process; libraries' own loggers end up in the same stream."""
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask,
    ]
    severity = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        # What is below the level costs a call that does nothing.
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # A line that cannot be written must not print its arguments, which may hold what `_mask` would have hidden.
    logging.raiseExceptions = False
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(service=service)


def masked(text: str) -> str:
    """`text` without secrets, e-mail addresses and card numbers."""
    text = _SECRETS.sub(lambda match: f"{match[match.lastindex or 0]}{_MASK}", text)
    text = _EMAIL.sub(f"{_MASK}@{_MASK}", text)
    return _CARD.sub(lambda match: _MASK if _is_card(match[0]) else match[0], text)


def _mask(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field, value in event.items():
        # Those with an underscore are structlog's own, and are never written.
        if not field.startswith("_"):
            event[field] = _masked(value)
    return event


def _masked(value: Any) -> Any:
    match value:
        case str():
            return masked(value)
        case dict():
            return {name: _masked(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_masked(inner) for inner in value]
        case bool() | int() | float() | None:
            return value
        case _:
            # The renderer would write its repr, which is as open as any text.
            return masked(repr(value))


def _is_card(text: str) -> bool:
    """Whether the digits have the check digit of card numbers (Luhn)."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = (digit * 2 for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(digit - 9 if digit > 9 else digit for digit in doubled)) % 10 == 0
