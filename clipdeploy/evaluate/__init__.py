"""How good a bundle's answers are on a dataset, by precision and backend, and where they differ from float32's."""
