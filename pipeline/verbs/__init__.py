"""What each verb of the command line does: of its arguments, returning the exit code."""
