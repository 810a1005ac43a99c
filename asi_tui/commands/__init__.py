"""The `asi` command's subcommands, grouped by what they touch; each function returns an exit code."""
