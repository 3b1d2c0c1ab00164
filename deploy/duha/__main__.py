"""``duha``: one command for every room; a room's needs are imported when it is asked for.

duha demo          a simulated city, live in the browser
duha edge ...      the agent in a cabinet
duha backend ...   the backend, its broker, its imports, its tokens
duha sim ...       simulated devices and their troubles
"""

import importlib
import importlib.metadata
import sys

_ROOMS = {
    "edge": ("duha_edge.cli", "edge"),
    "backend": ("duha_backend.cli", "backend"),
    "sim": ("duha_sim.cli", "simulators"),
    "demo": ("duha_sim.demo", "edge,backend"),
}


def main() -> int:
    """Hand the arguments to the room that they name; returns the exit status."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["version"]):
        print(importlib.metadata.version("duha"))
        return 0
    if not arguments or arguments[0] not in _ROOMS:
        print(__doc__)
        return 0 if arguments in ([], ["--help"], ["-h"]) else 2
    module, extra = _ROOMS[arguments[0]]
    try:
        room = importlib.import_module(module)
        return int(room.main(arguments[1:]))
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("duha"):
            raise
        print(
            f"duha {arguments[0]} needs {error.name}: pip install 'duha[{extra}]'",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
