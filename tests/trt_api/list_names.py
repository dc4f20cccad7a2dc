"""Run by itself: import one package and print its version and what each of its classes holds."""

import importlib
import inspect
import json
import sys


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    names = {"": dir(module)}
    waiting = [(name, value) for name, value in vars(module).items() if inspect.isclass(value)]
    while waiting:
        path, holder = waiting.pop()
        names[path] = dir(holder)
        for name, value in vars(holder).items():
            if inspect.isclass(value) and not name.startswith("_"):
                waiting.append((f"{path}.{name}", value))
    print(json.dumps({"version": module.__version__, "names": names}))


if __name__ == "__main__":
    main()
