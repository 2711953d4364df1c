"""How artifacts are built: tasks, worker processes, Dask, interrupts, ranks."""
