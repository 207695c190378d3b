"""One file a figure: records in, a matplotlib figure out; `paper.catalogue` says which results each is drawn from."""
