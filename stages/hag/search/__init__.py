"""The search for shared partial sums: what can be shared, what is merged, what stays."""
