"""The built-in demo: clips of things that strike, drawn and synthesised."""
