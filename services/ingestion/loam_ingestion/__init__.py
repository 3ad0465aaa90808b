"""Ingestion: documents in, a searchable index out, one writer at a time."""
