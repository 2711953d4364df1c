"""Where data sets come from: a kind describes itself (`*_source`) and is opened by its file."""
