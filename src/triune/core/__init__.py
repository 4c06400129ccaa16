"""The words of the house in code: tensors, requests, errors, protocols. Imports numpy and ml_dtypes only."""
