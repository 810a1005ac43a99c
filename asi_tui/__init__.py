"""The terminal app and the `asi` command: what a person sees and presses."""
