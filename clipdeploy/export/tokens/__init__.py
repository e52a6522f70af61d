"""A checkpoint's tokenizer, as facts and as one `tokenizer.json`."""
