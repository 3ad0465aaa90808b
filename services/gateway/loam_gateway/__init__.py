"""The gateway: the one public door, the keeper of keys, budgets and the ledger."""
