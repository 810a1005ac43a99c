"""The `asi` command. Nothing heavy is imported here: the emergency stop begins in this file, and must begin at once."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `asi`; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    from asi_tui.commands.common import FAILED, CommandError, complain

    try:
        if words[:1] == ["kill"]:
            from asi_tui.commands import emergency

            plain = emergency.plain_words(words[1:])
            if plain is not None:
                return emergency.kill(*plain)
        from asi_tui.arguments import handler, parser

        options = parser().parse_args(words)
        return handler(options.command)(options)
    except CommandError as error:
        complain(str(error))
        return error.code
    except BrokenPipeError:
        # The reader of our output went away (a pager, `head`): nobody is left to tell.
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
