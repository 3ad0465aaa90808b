"""The user-facing API: what people write in manifests, what is refused and why, and the CRDs made from it."""
