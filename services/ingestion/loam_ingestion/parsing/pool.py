"""The worker's side of parsing: a document that crashes, hangs or swells its parser takes nothing else with it.

What holds for every document: a process of its own with limits on address space, processor time and wall time, that
may write no file; no descriptor and no variable of the worker's environment (so no credential) reaches it. On Linux a
filter of system calls leaves it nothing but memory, the document and its answer: no file is opened, no socket made, no
process started; and where the kernel lets a process leave the network (as root, or with user namespaces), it has. What
it answers is bounded, and read as if the document had written it.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

from loam_ingestion.errors import ParserUnavailableError, UnreadableDocumentError
from loam_ingestion.parsing import Extracted, Heading
from loam_ingestion.parsing.process import Answer, OpenFile, Zygote
from loam_ingestion.parsing.wire import Request
from loam_ingestion.settings import ParsingLimits

_GAVE_UP = "The parser gave up on the document, which is broken or too large; export it again, or split it."
_TOO_MUCH_WORK = "Parsing took more processor time than allowed; split the document or simplify it."


@dataclass(frozen=True)
class Parsed:
    """A document's text, what its bytes turned out to be, and whether its parser could reach no network."""

    extracted: Extracted
    media_type: str
    isolated: bool


class Parsers:
    """Parses documents, at most `at_once` at a time; made by `parsers`."""

    def __init__(self, limits: ParsingLimits, at_once: int) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(at_once)
        self._idle: list[Zygote] = []
        self._busy: set[Zygote] = set()
        self._closed = False

    async def parse(self, name: str, media_type: str | None, file: OpenFile) -> Parsed:
        """Parse the whole of `file`, wherever its position is; cancelling ends the child.

        Raises UnreadableDocumentError, and ParserUnavailableError when helper processes do not start.
        """
        request = Request(name[-255:], media_type and media_type[:255], **self._limits.model_dump())
        async with self._turns:
            answer = await self._ask(self._rested() or self._new(), request, file)
            if answer is None:
                # A zygote may end for any reason; when a new one ends at the same document, that is the reason.
                answer = await self._ask(self._new(), request, file)
        return _parsed(answer)

    def close(self) -> None:
        """End all processes at once; what is being parsed ends in ParserUnavailableError."""
        self._closed = True
        for zygote in self._idle:
            zygote.kill()
        for zygote in self._busy:
            zygote.stop()

    async def _ask(self, zygote: Zygote, request: Request, file: OpenFile) -> Answer | None:
        async with self._at_work(zygote):
            try:
                async with asyncio.timeout(request.wall_seconds):
                    return await zygote.ask(request, file)
            except TimeoutError:
                raise UnreadableDocumentError(
                    f"Parsing took longer than {request.wall_seconds:.0f} seconds; split the document or simplify it."
                ) from None
            except ValueError:
                raise UnreadableDocumentError(_GAVE_UP) from None

    @contextlib.asynccontextmanager
    async def _at_work(self, zygote: Zygote) -> AsyncIterator[None]:
        """Wait until it is ready; what breaks off its work, cancelling too, ends it with its child."""
        self._busy.add(zygote)
        try:
            await zygote.started()
            yield
        except BaseException:
            zygote.kill()
            raise
        else:
            self._rest(zygote)
        finally:
            self._busy.discard(zygote)

    def _new(self) -> Zygote:
        if self._closed:
            raise ParserUnavailableError("documents are not parsed any more: the worker is stopping")
        try:
            return Zygote()
        except OSError as error:
            raise ParserUnavailableError(
                f"the process that parses documents does not start: {error.strerror}"
            ) from error

    def _rest(self, zygote: Zygote) -> None:
        if self._closed:
            zygote.kill()
        else:
            self._idle.append(zygote)

    def _rested(self) -> Zygote | None:
        while self._idle:
            zygote = self._idle.pop()
            if zygote.alive:
                return zygote
            zygote.kill()
        return None


@contextlib.asynccontextmanager
async def parsers(limits: ParsingLimits, at_once: int) -> AsyncIterator[Parsers]:
    """Parsers whose processes start when they are first needed, and end with the context or with this process."""
    pool = Parsers(limits, at_once)
    try:
        yield pool
    finally:
        pool.close()


def _parsed(answer: Answer | None) -> Parsed:
    if answer is not None and answer.status == -signal.SIGXCPU:
        raise UnreadableDocumentError(_TOO_MUCH_WORK)
    if answer is None or answer.status != 0 or answer.header is None:
        raise UnreadableDocumentError(_GAVE_UP)
    header = answer.header
    if header.error is not None:
        raise UnreadableDocumentError(header.error)
    headings = tuple(Heading(*heading) for heading in header.headings)
    extracted = Extracted(answer.text, header.title, headings, tuple(header.page_starts))
    return Parsed(extracted, header.media_type, answer.isolated)
