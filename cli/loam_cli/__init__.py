"""The `loam` command."""
