"""The commands of `loam`, one module for each or for a family of them."""
