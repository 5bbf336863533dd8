"""One file for each way to turn facts into factors."""
