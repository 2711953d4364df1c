"""What kernels of many stages use: compiled code that is kept, mixed bits, threads, products."""
