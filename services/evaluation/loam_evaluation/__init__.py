"""Measures retrieval: how well chunkings, modes and models find what a question asks for, in figures."""
