"""What ingestion reaches outside of itself: one module each."""
