"""Outside systems, one module each: the gateway's public API, and the control door of a local platform."""
