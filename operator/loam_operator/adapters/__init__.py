"""Outside systems: the Kubernetes API and the gateway, each reached through its own module."""
