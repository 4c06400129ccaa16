"""Models on disk in Triton's layout: config.pbtxt, versions, load and unload."""
