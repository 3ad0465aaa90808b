"""HTTP to addresses that tenants choose: webhooks, tools. Nothing inside of the platform can be reached through here.

`EgressClient` is the one door. A URL is read by one strict grammar (`target`), its host is resolved once, every
address it resolves to is judged (`addresses`), and the connection goes to exactly those; each redirect again.
"""

from loam_shared.egress.client import EgressClient, EgressFailedError, EgressResponse
from loam_shared.egress.policy import EgressRefusedError, Policy

__all__ = ["EgressClient", "EgressFailedError", "EgressRefusedError", "EgressResponse", "Policy"]
