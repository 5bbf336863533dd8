"""The patch: factors for some tensors of a checkpoint, and what they were made from.

`metadata` and `reader` load no torch, so that a patch can be inspected in a fraction of a second.
"""
