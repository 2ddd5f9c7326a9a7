"""Media files: probing, decoding sound to waveforms and pictures to RGB frames. The only importer of PyAV."""
