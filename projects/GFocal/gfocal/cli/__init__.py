"""The commands: a file for each, with ``parse_args(argv)`` and ``main(argv) -> exit status``."""
