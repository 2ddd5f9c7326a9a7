"""What the subcommands of `avrecog` do."""
