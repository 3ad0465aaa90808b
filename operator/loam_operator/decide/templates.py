"""Which prompt templates a tenant has, and which of its ConfigMaps hold none that can be used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from loam_operator.cluster import Manifest
from loam_operator.decide.facts import Fact, fails, holds
from loam_operator.seen import SeenTenant
from loam_shared.contracts.templates import MOST_CHARACTERS, MOST_TEMPLATES, PromptTemplate
from loam_shared.templates import TemplateError, parse

TEMPLATES_READY = "TemplatesReady"


@dataclass(frozen=True)
class Found:
    """The templates that can be used, and what is wrong with the others: ConfigMap, key and fault."""

    good: tuple[PromptTemplate, ...] = ()
    faults: tuple[str, ...] = field(default=())

    @property
    def fact(self) -> Fact:
        """The condition. One bad template takes nothing away from the good ones."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            return fails(TEMPLATES_READY, "TemplateInvalid", self.faults[0] + more)
        return holds(TEMPLATES_READY, "Served", ", ".join(template.label for template in self.good))


def templates(seen: SeenTenant, place: Fact) -> Found:
    """What the ConfigMaps of the tenant's namespace hold, once it is the tenant's."""
    return found_in(seen.template_maps) if place.status == "True" else Found()


def found_in(config_maps: Sequence[Manifest]) -> Found:
    """Of two that say the same name and version, the first by name of ConfigMap and key serves."""
    good: dict[str, tuple[str, PromptTemplate]] = {}
    faults: list[str] = []
    left = MOST_CHARACTERS
    for place, text in _files(config_maps):
        left -= len(text)
        try:
            template = parse(text)
        except TemplateError as error:
            faults.append(f"{place}: {error}")
            continue
        if template.label in good:
            faults.append(f"{place}: {template.label} is already in {good[template.label][0]}")
        elif len(good) == MOST_TEMPLATES or left < 0:
            limit = f"{MOST_TEMPLATES} templates of {MOST_CHARACTERS} characters together"
            faults.append(f"{place}: a tenant may have {limit}, and this is more")
        else:
            good[template.label] = place, template
    return Found(tuple(template for _, template in good.values()), tuple(faults))


def _files(config_maps: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    for manifest in sorted(config_maps, key=lambda found: found["metadata"]["name"]):
        for key, text in sorted((manifest.get("data") or {}).items()):
            yield f'ConfigMap "{manifest["metadata"]["name"]}", key "{key}"', text
