"""Cooperative mini-batches: all ranks work on one batch, every row is read and computed by the one rank that owns it."""
