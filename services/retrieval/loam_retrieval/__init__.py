"""Retrieval: hybrid search over a pipeline's index, and answers that cite it."""
