"""Recognise what happens in a clip from its sound and picture."""

import os

# PyTorch's threads spin while they wait for each other. On a machine that does anything else at the same time this made
# training 6 to 24 times slower (docs/log.md); sleeping costs nothing that could be measured. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The threads of NumPy's and SciPy's OpenBLAS wait for each other too, after each product, and the products are small
# here: beside other work stage fuse took up to 40 times as long (docs/log.md). So one thread, whatever OMP_NUM_THREADS
# says; PyTorch has threads of its own. Read when NumPy is loaded.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
