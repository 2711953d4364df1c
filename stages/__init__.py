"""What is computed: one folder per stage, each a thin description over pure kernels."""
