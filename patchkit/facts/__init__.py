"""Facts: what is to be changed, read from files and located in tokenised text."""
