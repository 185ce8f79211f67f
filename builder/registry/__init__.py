"""The registry client (OCI distribution-spec 1.1): transport, credentials, documents, blobs, transfers.

Knows image names and descriptors, nothing of the store: blobs are read from and written to protocols that
``pull`` and ``push`` state beside their callers.
"""
