"""The Loam operator: custom resources in, isolated and budgeted tenants out."""
