"""KServe over gRPC."""
