"""`loam up`: the whole platform on one machine, with every Deployment as a local process."""
