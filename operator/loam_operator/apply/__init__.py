"""Writing: what was rendered, statuses, finalizers, and what the gateway is told."""
