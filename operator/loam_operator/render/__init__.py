"""Pure functions from what was seen to whole manifests and wire types. No client, clock or random number."""
