"""What retrieval reaches outside of itself: one module each."""
