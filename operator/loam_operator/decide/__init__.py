"""Deciding from what was seen: named checks with reasons. No client, no clock."""
