"""What an engine is made of, what its graph asked for, and whether the two agree."""
