"""Direct work: products and convolutions of arrays on a unit, without a model."""
