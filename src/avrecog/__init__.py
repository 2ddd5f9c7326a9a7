"""Recognise what happens in a clip from its sound and picture."""

import os

# PyTorch's threads spin while they wait for each other. On a machine that does anything else at the same time this made
# training 6 to 24 times slower (docs/log.md); sleeping costs nothing that could be measured. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
