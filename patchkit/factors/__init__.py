"""What a patch does to one matrix: rotations of either side, and additive factors.

A weight W is always meant as (d_out, d_in), whatever its layout in the file. An input-side
rotation gives W R, an output-side rotation R W, an additive factor W + l f or W + D. This module
itself loads no torch, so that metadata can name sides and layouts without it.
"""

from typing import Literal

Side = Literal["input", "output"]
"""Which side of W a rotation acts on."""

Kind = Literal["rotation", "rotation-blocks", "additive", "additive-dense"]
"""What a factor is: a rotation by its planes or by diagonal blocks, a sum in factors or whole."""

Layout = Literal["linear", "conv1d"]
"""How a matrix is stored: `linear` as (d_out, d_in), `conv1d` as (d_in, d_out)."""
