"""Processes that train one model together: how they start, meet, speak and end."""
