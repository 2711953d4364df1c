"""The artifact store: bytes, digests, manifests, attempts and commits; knows nothing of recipes or
stages.
"""
