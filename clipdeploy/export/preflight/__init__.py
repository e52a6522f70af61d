"""What is looked at before a checkpoint is traced: the faults of the field that make no error, only wrong answers."""
