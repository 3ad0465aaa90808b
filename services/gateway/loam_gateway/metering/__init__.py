"""From a request to its entry in the ledger: bounds, hold, call, settlement, and never two of the last."""
