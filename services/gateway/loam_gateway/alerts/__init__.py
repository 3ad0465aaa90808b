"""Budget alerts: who is told, and when, that a cap is being used up.

A look at the accounts, every second by one gateway, writes what passed a percentage into an outbox in the same
transaction that remembers it; so a crash loses no alert and raises none twice. All gateways share the outbox. A
message may still arrive twice, when its sender is killed after sending and before noting so; it then has the same id.
"""

from loam_gateway.alerts.room import Alerts, opened

__all__ = ["Alerts", "opened"]
