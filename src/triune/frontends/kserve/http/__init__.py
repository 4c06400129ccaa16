"""KServe over HTTP."""
