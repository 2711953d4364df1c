"""Feature codes: format, encoding, decoding, training, rates. Stages `codebook` and `quantize` are
thin over it.
"""
