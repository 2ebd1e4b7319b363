"""`kubectl`, `helm` and `docker` in the handbook: there is no cluster and no engine here, so that nothing is run.

Their words and options are looked at instead. What comes after an image's name, or after `--` in `kubectl exec`, is a
command line of ours, and has to be one.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ("MisspeltError", "ask", "check", "write_checkers")

_KUBECTL = {
    "apply": {"-f"},
    "create job": {"--from"},
    "create secret generic": {"--from-file", "--from-literal", "--dry-run", "-o"},
    "delete pod": set[str](),
    "describe": set[str](),
    "exec": {"-i", "-t", "-it"},
    "get": {"-o", "-w", "-l", "--watch"},
    "logs": {"-f", "--since", "--tail", "-l", "--previous", "--all-containers"},
    "rollout restart": set[str](),
    "rollout status": {"--timeout"},
    "rollout undo": set[str](),
    "scale": {"--replicas"},
    "top pod": {"-l"},
}
_HELM = {
    "history": set[str](),
    "install": {"-f", "--values", "--set", "--wait", "--timeout", "--create-namespace", "--version"},
    "rollback": {"--wait", "--timeout"},
    "status": set[str](),
    "test": {"--logs"},
    "upgrade": {"-f", "--values", "--install", "--set", "--wait", "--timeout", "--version", "--reuse-values"},
}
_EVERYWHERE = {"-n", "--namespace", "--context"}
_VALUED = {
    *(
        "-n",
        "--namespace",
        "--context",
        "-f",
        "-o",
        "-l",
        "--from",
        "--from-file",
        "--from-literal",
        "--since",
        "--tail",
    ),
    *("--timeout", "--replicas", "--set", "--values", "--version"),
}
_DOCKER = {
    "build": ({"-t", "--tag", "--build-arg"}, {"--pull"}),
    "run": ({"--tmpfs", "--cap-drop", "--security-opt", "-p", "-v", "-e"}, {"--read-only", "--rm", "--no-healthcheck"}),
}
IMAGE = "tenantry"


class MisspeltError(ValueError):
    """The command line is none."""


def check(program: str, arguments: list[str]) -> list[str]:
    """The command of ours that is within it, without `tenantry`, or nothing.

    Raises:
        MisspeltError: there is no such command, or it has no such option.
    """
    if program == "docker":
        return _docker(arguments)
    table = {"kubectl": _KUBECTL, "helm": _HELM}[program]
    ours: list[str] = []
    if "--" in arguments:
        arguments, ours = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
        if program != "kubectl" or ours[:1] != ["tenantry"]:
            raise MisspeltError(f"what follows -- is to be a command of tenantry: {ours}")
    words, options = _split(arguments)
    verb = next((verb for verb in table if words[: len(verb.split())] == verb.split()), None)
    if verb is None:
        raise MisspeltError(f"{program} {' '.join(words)}: none of {sorted(table)}")
    if unknown := options - table[verb] - _EVERYWHERE:
        raise MisspeltError(f"{program} {verb} has no {sorted(unknown)}")
    if verb == "exec" and not ours:
        raise MisspeltError("kubectl exec without a command")
    return ours[1:]


def _split(arguments: list[str]) -> tuple[list[str], set[str]]:
    words, options = list[str](), set[str]()
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            words.append(argument)
            continue
        name, equals, _ = argument.partition("=")
        options.add(name)
        if name in _VALUED and not equals:
            next(rest, None)
    return words, options


def _docker(arguments: list[str]) -> list[str]:
    verb, *rest = arguments
    if verb not in _DOCKER:
        raise MisspeltError(f"docker {verb}: none of {sorted(_DOCKER)}")
    valued, plain = _DOCKER[verb]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0).partition("=")
        if option[0] in valued:
            if not option[1]:
                rest.pop(0)
        elif option[0] not in plain:
            raise MisspeltError(f"docker {verb} has no {option[0]}")
    if verb == "build":
        if rest != ["."]:
            raise MisspeltError("docker build is given the repository")
        return []
    if rest[:1] != [IMAGE]:
        raise MisspeltError(f"docker run is given the image {IMAGE}, and not {rest[:1]}")
    return rest[1:]


def ask(program: str, arguments: list[str]) -> None:
    """Have the program itself look at the options, where there is one: with `--help` it does no more.

    Raises:
        MisspeltError: it does not know one of them.
    """
    beside = Path(sys.executable).parent / program
    real = str(beside) if beside.exists() else shutil.which(program, path=os.environ.get("OUTSIDE_PATH"))
    if real is None or program == "docker":
        return
    end = arguments.index("--") if "--" in arguments else len(arguments)
    asked = subprocess.run([real, *arguments[:end], "--help"], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise MisspeltError(asked.stderr)


_CHECKER = """\
#!/bin/sh
ours=$(OUTSIDE_PATH={path} {python} {file} {program} "$@") || exit 2
[ -z "$ours" ] || eval "tenantry $ours --help" > /dev/null
"""


def write_checkers(folder: Path) -> None:
    """Write programs of these names that look at their arguments and at the command of ours in them, and do nothing."""
    for program in ("kubectl", "helm", "docker"):
        path = folder / program
        # Where the programs themselves are looked for: not in the folder of those that stand in for them.
        values = {"path": shlex.quote(os.environ["PATH"]), "python": sys.executable, "file": __file__}
        path.write_text(_CHECKER.format(program=program, **values))
        path.chmod(0o755)


if __name__ == "__main__":
    try:
        sys.stdout.write(shlex.join(check(sys.argv[1], sys.argv[2:])))
        ask(sys.argv[1], sys.argv[2:])
    except MisspeltError as error:
        sys.exit(str(error))
