"""One module per kind: observe, decide, render, apply, in this order, for every reason there is to look."""
