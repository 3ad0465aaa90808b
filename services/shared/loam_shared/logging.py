"""Logs: one JSON object a line for machines, short coloured lines on a terminal, never a secret."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

# A Loam key, a bearer token, or an AWS secret in a value is masked, whatever field it came in.
_SECRETS = re.compile(r"(loam_[A-Za-z0-9]{4})[A-Za-z0-9]+|((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]+")

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
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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


def _mask(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field, value in event.items():
        if isinstance(value, str):
            event[field] = _SECRETS.sub(lambda match: f"{match[1] or match[2]}***", value)
    return event
