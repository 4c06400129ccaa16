"""Code that all conversions of a graph share: options, preparation, shapes and constants, and reports of problems."""
