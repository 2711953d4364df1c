"""`stockpot soup`: models of other runs and of files, put together."""
