"""Sampled batches: neighbour sampling and LABOR, independent or dependent, the same on any machine."""
