"""`redis-cli -u ADDRESS COMMAND …`, which no package for Python brings along: what the handbook uses of it."""

from __future__ import annotations

import sys

from redis import Redis


def main() -> None:
    _, option, address, *command = sys.argv
    if option != "-u" or not command:
        sys.exit("redis-cli -u ADDRESS COMMAND …")
    with Redis.from_url(address, decode_responses=True) as redis:
        answer = redis.execute_command(" ".join(command[:1]), *command[1:])
    for line in answer.items() if isinstance(answer, dict) else answer if isinstance(answer, list) else [answer]:
        sys.stdout.write(f"{':'.join(map(str, line)) if isinstance(line, tuple) else line}\n")


if __name__ == "__main__":
    main()
