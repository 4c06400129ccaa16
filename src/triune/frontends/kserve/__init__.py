"""KServe v2, as Triton serves it, over HTTP and gRPC."""
