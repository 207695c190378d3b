"""Computer algebra for symbolic K and matrices of every size: what the symbolic certificates are made of."""
