"""Output layouts of exported graphs, one file each."""
