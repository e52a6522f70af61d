"""A graph to an engine file: options and batches to the product's own terms, the build, and what it complained of."""
