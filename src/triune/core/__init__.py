"""The types that every package shares: tensors, requests, errors, protocols. Imports numpy and ml_dtypes only."""
