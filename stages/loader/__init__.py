"""The streaming loader: from packed records to the steps of training and inference, and nothing of
how work is run.
"""
