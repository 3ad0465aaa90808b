"""Which templates there are for a tenant: the platform's, and its own on top of them."""

import re
from collections.abc import Iterable, Mapping
from importlib import resources

from pydantic import TypeAdapter

from loam_gateway.directory.cache import Directory
from loam_shared.contracts.templates import PromptTemplate
from loam_shared.errors import InvalidRequestError, NotFoundError
from loam_shared.templates import parse

_REFERENCE = re.compile(r"(?P<name>[a-z0-9-]{1,63})(@(?P<version>[1-9][0-9]{0,6}))?")

_MOST_TENANTS = 512

Versions = Mapping[int, PromptTemplate]
_STORED = TypeAdapter(tuple[PromptTemplate, ...])


class Templates:
    """The templates that calls may name.

    A tenant's own template hides the platform's of the same name with all its versions, for this tenant alone: who
    writes a `summarize` of its own never gets another one by accident.
    """

    def __init__(self, directory: Directory, platform: Mapping[str, Versions]) -> None:
        self._directory = directory
        self._platform = platform
        # As the database had them when they were read last. A tenant's earlier ones are not kept beside them: whoever
        # changes large templates again and again could fill the memory with those.
        self._read: dict[str, tuple[str, Mapping[str, Versions]]] = {}

    async def named(self, tenant: str, reference: str) -> PromptTemplate:
        """The template that `reference` stands for: ``name@version``, or ``name`` for the latest version.

        Raises NotFoundError, and InvalidRequestError for what is no such reference.
        """
        parts = _REFERENCE.fullmatch(reference)
        if parts is None:
            raise InvalidRequestError('template: write a name, or "name@version" with a number', param="template")
        name, version = parts["name"], parts["version"]
        versions = (await self._own(tenant)).get(name) or self._platform.get(name, {})
        found = versions.get(int(version) if version else max(versions, default=0))
        if found is None:
            raise NotFoundError(f'there is no template "{reference}"', param="template")
        return found

    async def all(self, tenant: str) -> list[tuple[str, PromptTemplate]]:
        """All versions of all templates for `tenant` by name and version, each with whose it is: platform or tenant."""
        own = await self._own(tenant)
        places = {name: ("platform", versions) for name, versions in self._platform.items()}
        places |= {name: ("tenant", versions) for name, versions in own.items()}
        return [
            (owner, versions[version])
            for _, (owner, versions) in sorted(places.items())
            for version in sorted(versions)
        ]

    async def _own(self, tenant: str) -> Mapping[str, Versions]:
        stored = await self._directory.templates(tenant)
        known = self._read.get(tenant)
        if known is None or known[0] != stored:
            if len(self._read) >= _MOST_TENANTS:
                self._read.clear()
            known = self._read[tenant] = stored, _by_name(_STORED.validate_json(stored))
        return known[1]


def opened(directory: Directory) -> Templates:
    """The templates, with those that come with the platform."""
    library = resources.files(__package__) / "library"
    files = (entry for entry in library.iterdir() if entry.name.endswith(".yaml"))
    return Templates(directory, _by_name(parse(entry.read_text("utf-8")) for entry in files))


def _by_name(templates: Iterable[PromptTemplate]) -> dict[str, dict[int, PromptTemplate]]:
    found: dict[str, dict[int, PromptTemplate]] = {}
    for template in templates:
        found.setdefault(template.name, {})[template.version] = template
    return found
