"""Reads requests, a JSON object a line, and runs each in processes that fork from this one; answers with their
statuses.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import kilonova.train.supervisor  # noqa: F401


def run(code: str, arguments: list[str], environment: dict[str, str]) -> int:
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        children = []
        for number, environment in enumerate(request["environments"]):
            child = os.fork()
            if child == 0:
                for descriptor, name in ((1, "stdout"), (2, "stderr")):
                    path = Path(request["folder"]) / f"{name}-{number}"
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
                os._exit(run(request["code"], request["arguments"], environment))
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


main()
