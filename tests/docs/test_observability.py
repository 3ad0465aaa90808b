"""The guide to observability speaks of what is there."""

import re
from pathlib import Path

from loam_gateway.metrics import Metrics

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "observability.md"


def test_every_metric_that_the_guide_names_is_in_the_registry():
    known = {line.split(" ")[2] for line in Metrics().exposition().decode().splitlines() if line.startswith("# TYPE")}
    named = set(re.findall(r"\bloam_[a-z_]+", GUIDE.read_text()))
    assert named
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= known
