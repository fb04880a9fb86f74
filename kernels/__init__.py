"""Operators of the decoder: a folder for each kind, with the specification in torch, and the GPU's and CPU's versions.

`contract.py` names the data; `reference.py`, `gpu.py` and `cpu.py` list the operators of the specification and of each
device, with the same signatures. Nothing here knows of models, sessions or text.
"""

# transformers probes a package of this name as if it were Hugging Face's `kernels` and parses its version.
__version__ = "0.1.0"
