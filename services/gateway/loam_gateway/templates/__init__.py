"""Prompt templates: the platform's and each tenant's own, and how a call becomes a prompt. No code runs in them."""
