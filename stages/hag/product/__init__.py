"""Products by a HAG: its levels in the order a CPU computes them, and as a matrix of tensors."""
