"""Reading everything that one object depends on from the cache, in one go."""
