"""See, cancel and fetch what was queued in a running ComfyUI; nothing but Python is needed.

python manage_queue.py list                what runs and what waits, with what each loads
python manage_queue.py cancel NUMBER ...   single runs, or `all`
python manage_queue.py fetch NUMBER FOLDER what a finished run has saved

NUMBER is what ComfyUI calls prompt_id. --server 127.0.0.1:8188 before the command is another one.
"""

import argparse
import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

# Entries of the queue: a place, the number of the run, the workflow, and more.
Entry = list[Any]


def answer_to(address: str, content: dict[str, Any] | None = None) -> bytes:
    """The answer to a GET, or to a POST of a content."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def entries(server: str) -> dict[str, list[Entry]]:
    """What runs and what waits, the next first."""
    queue = json.loads(answer_to(f"{server}/queue"))
    return {
        state: sorted(queue[f"queue_{state}"], key=lambda run: run[0])
        for state in ("running", "pending")
    }


def show(server: str) -> None:
    """Print a line for each run."""
    for state, runs in entries(server).items():
        for _, number, workflow, *_ in runs:
            loaders = [node for node in workflow.values() if node["class_type"] == "LoadImage"]
            print(state, number, *(node["inputs"]["image"] for node in loaders))


def cancel(server: str, numbers: list[str]) -> None:
    """Take runs out of the queue, and end the one that is computed if it is among them."""
    if numbers == ["all"]:
        numbers = [run[1] for runs in entries(server).values() for run in runs]
    answer_to(f"{server}/queue", {"delete": numbers})
    for number in numbers:
        answer_to(f"{server}/interrupt", {"prompt_id": number})


def fetch(server: str, number: str, folder: Path) -> None:
    """Write the pictures that a run has saved, under their names."""
    history = json.loads(answer_to(f"{server}/history/{number}"))
    if number not in history:
        raise SystemExit(f"{number} has not ended, or ComfyUI does not know it.")
    folder.mkdir(parents=True, exist_ok=True)
    outputs = history[number]["outputs"].values()
    images = [image for output in outputs for image in output.get("images", [])]
    for image in images:
        if image["type"] == "output":
            query = urllib.parse.urlencode(image)
            (folder / image["filename"]).write_bytes(answer_to(f"{server}/view?{query}"))
            print(folder / image["filename"])
    if history[number]["status"]["status_str"] != "success":
        raise SystemExit(f"{number} failed, or was cancelled.")


def main() -> None:
    """Do what the command says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="127.0.0.1:8188")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    commands.add_parser("cancel").add_argument("numbers", nargs="+")
    fetching = commands.add_parser("fetch")
    fetching.add_argument("number")
    fetching.add_argument("folder", type=Path)
    options = parser.parse_args()
    server = f"http://{options.server}"
    if options.command == "list":
        show(server)
    elif options.command == "cancel":
        cancel(server, options.numbers)
    else:
        fetch(server, options.number, options.folder)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        raise SystemExit(str(error)) from None
