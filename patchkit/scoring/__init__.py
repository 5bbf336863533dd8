"""A model and facts in, figures out; used while editing and by `evaluate`."""
