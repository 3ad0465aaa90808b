"""The ledger: budgets that are hard, and one immutable entry for everything that is metered."""

from loam_gateway.ledger.ledger import Ledger

__all__ = ["Ledger"]
