"""Tenants, models and keys: who may do what, and what it costs. Read through a short-lived cache of each process."""
