"""The screens, each one key away; a hidden one costs nothing."""
