"""Whether the API lives and is ready, asked by its Service: what `helm test` runs, with the address as argument."""

import json
import sys
import time
import urllib.error
import urllib.request

ATTEMPTS = 30
PAUSE = 2.0


def ask(url):
    """The status and the body of an answer; 0 and the reason where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()
    except OSError as error:
        return 0, str(error)


def main(address, attempts=ATTEMPTS, pause=PAUSE):
    """0 once both are well; 1 if they have not been for a minute. Pods that have just come may need that long."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause)
        answers = {path: ask(address + path) for path in ("/health/live", "/health/ready")}
        if all(status == 200 for status, _ in answers.values()):
            break
    for path, (status, body) in answers.items():
        sys.stdout.write(json.dumps({"asked": address + path, "status": status, "answer": body}) + "\n")
    return 0 if all(status == 200 for status, _ in answers.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
