"""What runs over a program before it is saved: few passes of coremltools, and Triune's own."""
