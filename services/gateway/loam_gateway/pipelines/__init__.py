"""Pipelines: what they hold (documents), what is to be done (work under a lease), what they answer (query, chat)."""
