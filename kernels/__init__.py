"""Operators of the decoder: the specification in plain torch, and fast versions for GPU and CPU.

`reference.py` says what each operator computes; `gpu/` and `cpu/` hold the same names with the same signatures. Nothing
here knows of models, sessions or text.
"""

# transformers probes a package of this name as if it were Hugging Face's `kernels` and parses its version.
__version__ = "0.1.0"
