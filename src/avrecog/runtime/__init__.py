"""The process and its machine: files, processes, the device, how a stage begins and ends."""
