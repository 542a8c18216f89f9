"""Linear and MLP heads on frozen features, many of them trained in one program."""
