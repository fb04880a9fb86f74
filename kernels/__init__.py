"""Operators of the decoder: one folder an operator, with its specification in torch, and its GPU's and CPU's version.

`contract.py` names the data; `reference.py`, `gpu.py` and `cpu.py` list the operators of the specification and of each
device, with the same names and signatures. Nothing here knows of models, sessions or text.
"""

# transformers probes a package of this name as if it were Hugging Face's `kernels` and parses its version.
__version__ = "0.1.0"
