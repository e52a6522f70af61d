"""Where a checkpoint comes from: names, folders and repositories, resolved to files on this machine."""
