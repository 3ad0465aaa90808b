"""Whether a ModelRoute can be called, and charged for."""

from collections.abc import Mapping

from loam_operator.api.v1alpha1 import ModelRoute
from loam_operator.decide.facts import Fact, fails, holds
from loam_operator.seen import SeenModelRoute


def decide(seen: SeenModelRoute) -> list[Fact]:
    """Named checks in the order in which they matter."""
    return [_priced(seen.route), _credential(seen), _fallbacks(seen)]


def _priced(route: ModelRoute) -> Fact:
    if route.spec.price is None:
        return fails("Priced", "NoPrice", "every call is refused until spec.price says what one costs")
    return holds("Priced", "Priced")


def _credential(seen: SeenModelRoute) -> Fact:
    ref = seen.route.spec.credentials_secret_ref
    if ref is not None and seen.credential is None:
        message = f'the platform\'s namespace has no Secret "{ref.name}" with a value under "{ref.key}"'
        return fails("CredentialFound", "SecretMissing", message)
    return holds("CredentialFound", "Found")


def _fallbacks(seen: SeenModelRoute) -> Fact:
    missing = [name for name in seen.route.spec.fallbacks if name not in seen.routes]
    if missing:
        return fails("FallbacksFound", "FallbackMissing", f"there is no ModelRoute {_listed(missing)} to fall back to")
    cycle = _cycle(seen.route.metadata.name, seen.routes)
    if cycle:
        return fails("FallbacksFound", "FallbackCycle", f"the fallbacks run in a circle: {' → '.join(cycle)}")
    return holds("FallbacksFound", "Found")


def _cycle(start: str, routes: Mapping[str, ModelRoute]) -> list[str] | None:
    """A way along fallbacks from `start` back to it."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        route = routes.get(way[-1])
        for name in route.spec.fallbacks if route else ():
            if name == start:
                return [*way, start]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
